"""Tables and uploads in a bucket."""

from __future__ import annotations

from uuid import uuid4

import boto3
import pyarrow as pa
import pytest

import batch.doctor.places
from archive.catalogue.row_updates import add_files
from archive.catalogue.uploads import keep
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import MEDIA
from batch.doctor.places import check_uploads
from batch.doctor.tables import check_tables
from model_store.storage import Folder
from tests.fixtures_local import jpeg, put_results, result_rows


def test_lost_files_of_tables_and_uploads_are_found(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = f"doctor-{uuid4().hex}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    tables, uploads = Tables(f"s3://{bucket}/tables"), Folder(f"s3://{bucket}/uploads")
    kept, other = (keep(uploads, "north", jpeg(shade=shade)).row for shade in (1, 2))
    add_files(Writer(tables, "media", uploads.url), pa.Table.from_pylist([kept], schema=MEDIA))
    put_results(tables, result_rows([kept["media_sha256"]], run_id="upload"))
    assert [*check_tables(tables), *check_uploads(tables, uploads.url)] == []
    monkeypatch.setattr(batch.doctor.places, "WAITING", -batch.doctor.places.WAITING)
    client.delete_object(Bucket=bucket, Key=f"uploads/{kept['path']}")
    lost, unrecorded = check_uploads(tables, uploads.url)
    assert (kept["path"] in lost.problem, other["path"] in unrecorded.problem) == (True, True)
    (file,) = tables.snapshot("results").file_uris()
    client.delete_object(Bucket=bucket, Key=file.removeprefix(f"s3://{bucket}/"))
    (found,) = check_tables(tables)
    assert (found.subject, found.problem[:11]) == ("results", "1 of 1 file")
