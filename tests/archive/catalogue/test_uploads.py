"""Uploaded images: stored once, named by their content, with the same rows as from an ingest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import numpy as np
import pyarrow as pa
import pytest

import archive.catalogue.ingest
from archive.catalogue.ingest import ingest
from archive.catalogue.listing import file_at
from archive.catalogue.row_updates import add_files
from archive.catalogue.uploads import CAMERA_BYTES, keep
from archive.delta.tables import Tables
from archive.delta.writer import Writer, add_results
from archive.schemas import MEDIA
from archive.views.query import query
from model_store.errors import BadRequest, ImageUnsupported, StorageUnsafe
from model_store.storage import Folder
from tests.fixtures_local import encoded, jpeg, photo, result_rows, rows_of, write_files

PIXELS = np.full((32, 48, 3), 90, np.uint8)
SERIAL = {0xA431: "H700-117"}
MOMENT = {"ingested_at", "catalogued_at"}


def without_moment(row: dict[str, Any]) -> dict[str, Any]:
    (stored,) = pa.Table.from_pylist([row], schema=MEDIA).to_pylist()
    return {name: value for name, value in stored.items() if name not in MOMENT}


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "uploads"))


@pytest.mark.parametrize("camera", ["Weiher 3 (öst.)", "鹿" * (CAMERA_BYTES // 3), ""])
def test_the_bytes_are_kept_under_their_own_digest(root: Folder, camera: str) -> None:
    data = photo("cat")
    kept = keep(root, camera, data)
    name = hashlib.sha256(data).hexdigest() + ".jpg"
    assert kept.is_new
    assert not keep(root, camera, data).is_new
    assert kept.row["path"] == (f"{camera}/{name}" if camera else name)
    assert (Path(root.url) / kept.row["path"]).read_bytes() == data
    assert kept.row["camera_id"] == (camera or None)


PICTURES = {
    "of a camera that names itself": jpeg(detail=SERIAL),
    "turned, with a time": jpeg({0x0112: 6}, {0x9003: "2026:05:01 12:00:00"}),
    "png": encoded(PIXELS, "PNG"),
    "tiff": encoded(PIXELS, "TIFF"),
}


@pytest.mark.parametrize(("what", "camera"), [*((what, "north") for what in PICTURES), ("png", "")])
def test_its_row_is_that_of_an_ingest(root: Folder, tables: Tables, what: str, camera: str) -> None:
    kept = keep(root, camera, PICTURES[what])
    ingest(tables, root.url)
    (row,) = rows_of(tables, "media")
    assert without_moment(kept.row) == without_moment(row)


def test_on_s3_too(s3_endpoint: str, tables: Tables) -> None:
    bucket = f"uploads-{uuid4().hex}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    root = Folder(f"s3://{bucket}/sent")
    first, again = keep(root, "north", photo("cat")), keep(root, "north", photo("cat"))
    assert (first.is_new, again.is_new) == (True, False)
    stored = client.get_object(Bucket=bucket, Key=f"sent/{first.row['path']}")["Body"].read()
    assert stored == photo("cat")
    ingest(tables, root.url)
    (row,) = rows_of(tables, "media")
    assert without_moment(first.row) == without_moment(row)


@pytest.mark.parametrize(
    "camera",
    [
        ".hidden",
        "..",
        "a/b",
        "a\\b",
        " north",
        "north ",
        "a\nb",
        "\0",
        "x?versionId=1",
        "n" * 101,
        "ö" * 101,
        "鹿" * 70,
        "a" * 64 + ".jpg",
        "A" * 64 + ".x",
        "=cmd|' /C calc'!A0",
        "-1",
        "@north",
        "north\u202egpj",
        "no\u00a0rth",
    ],
)
def test_what_names_no_folder_is_refused_before_anything_is_written(root: Folder, camera: str) -> None:
    with pytest.raises(BadRequest, match="invalid camera"):
        keep(root, camera, photo("cat"))
    assert not Path(root.url).exists()


def test_what_is_no_image_is_not_kept(root: Folder) -> None:
    with pytest.raises(ImageUnsupported):
        keep(root, "north", b"%PDF-1.4")
    assert not Path(root.url).exists()


def put(tables: Tables, *rows: dict[str, Any]) -> None:
    table = pa.Table.from_pylist(list(rows), schema=MEDIA)
    add_files(Writer(tables, "media", rows[0]["source_root"]), table)


def cameras(tables: Tables, row: dict[str, Any]) -> list[str]:
    sql = f"select camera_id from images where media_sha256 = '{row['media_sha256']}'"
    return query(tables, sql)["camera_id"].to_pylist()


def test_what_arrives_during_the_listing_is_not_taken_for_gone(
    root: Folder, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(root, "north", photo("cat"))
    ingest(tables, root.url)
    listed = archive.catalogue.ingest.list_files

    def with_an_upload_after_it(*place: Any) -> Any:
        yield from listed(*place)
        put(tables, keep(root, "north", jpeg()).row)

    monkeypatch.setattr(archive.catalogue.ingest, "list_files", with_an_upload_after_it)
    report = ingest(tables, root.url)
    assert (report.files, report.missing) == (1, 0)
    assert [row["missing_since"] for row in rows_of(tables, "media")] == [None, None]


def test_a_picture_that_is_sent_again_stays_the_image_of_its_content(
    tmp_path: Path, root: Folder, tables: Tables
) -> None:
    """Catalogue a copy in between; remove the upload, ingest, and upload it again."""
    first = keep(root, "north", photo("cat")).row
    put(tables, first, keep(root, "north", jpeg()).row)
    ingest(tables, str(write_files(tmp_path / "copies", {"south/a.jpg": photo("cat")})))
    (Path(root.url) / first["path"]).unlink()
    ingest(tables, root.url)
    assert cameras(tables, first) == ["south"]
    put(tables, again := keep(root, "north", photo("cat")).row)
    assert again["catalogued_at"] > first["catalogued_at"]
    assert cameras(tables, first) == ["north"]


def test_a_file_that_was_missing_is_there_again(root: Folder, tables: Tables) -> None:
    """Its row has the new file's tag at once; other rows are unchanged."""
    first, other = keep(root, "north", photo("cat")).row, keep(root, "north", jpeg()).row
    put(tables, first, other)
    (Path(root.url) / first["path"]).unlink()
    ingest(tables, root.url)
    assert {r["path"] for r in rows_of(tables, "media") if r["missing_since"]} == {first["path"]}
    again = keep(root, "north", photo("cat"))
    assert again.is_new
    add_files(Writer(tables, "media", root.url), pa.Table.from_pylist([again.row, other], schema=MEDIA))
    rows = {row["path"]: row for row in rows_of(tables, "media")}
    assert len(rows_of(tables, "media")) == 2
    assert without_moment(rows[first["path"]]) == without_moment(again.row)
    assert without_moment(rows[other["path"]]) == without_moment(other)
    assert ingest(tables, root.url).bytes_read == 0


def test_a_file_in_its_place_that_is_another_is_not_taken_for_it(root: Folder) -> None:
    row = keep(root, "north", photo("cat")).row
    (Path(root.url) / row["path"]).write_bytes(photo("cat")[:1000])
    with pytest.raises(StorageUnsafe, match="1000 bytes"):
        keep(root, "north", photo("cat"))


def test_a_file_of_the_same_size_in_its_place_is_not_taken_for_it(root: Folder) -> None:
    data = photo("cat")
    (Path(root.url) / keep(root, "north", data).row["path"]).write_bytes(bytes(len(data)))
    with pytest.raises(StorageUnsafe, match="does not match the digest"):
        keep(root, "north", data)


def test_a_folder_in_its_place_is_not_taken_for_it_on_s3(s3_endpoint: str) -> None:
    """Objects below the name of an image make it a folder, but do not block the image."""
    bucket = f"uploads-{uuid4().hex}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    name = hashlib.sha256(photo("cat")).hexdigest() + ".jpg"
    client.put_object(Bucket=bucket, Key=f"sent/{name}/1.jpg", Body=b"1")
    with pytest.raises(StorageUnsafe, match="not a file"):
        file_at(Folder(f"s3://{bucket}/sent"), name)
    kept = keep(Folder(f"s3://{bucket}/sent"), "", photo("cat"))
    assert kept.is_new


def test_a_row_that_failed_is_replaced_and_no_other(tables: Tables) -> None:
    add_results(tables, "k", result_rows(["a", "b"], status="failed", run_id="r1"))
    add_results(tables, "k", result_rows(["c"], run_id="r1"))
    add_results(tables, "k", result_rows(["a", "c", "d"], run_id="upload"))
    found = {(r["media_sha256"], r["status"], r["run_id"]) for r in rows_of(tables, "results")}
    assert found == {("a", "ok", "upload"), ("b", "failed", "r1"), ("c", "ok", "r1"), ("d", "ok", "upload")}
    assert len(rows_of(tables, "results")) == 4
