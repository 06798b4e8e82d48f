"""Archive, tables and models on an S3 server: the same job, the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from archive.delta.tables import Tables
from archive.views.query import query
from examples.sample_archive import build
from model_store.names import version_id
from model_store.storage import Folder
from model_store.store import ModelStore

pytestmark = pytest.mark.cluster


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="field")
    return "s3://field"


def test_the_job_runs_against_an_s3_archive_and_s3_tables(
    cluster: Any, bucket: str, tmp_path: Path
) -> None:
    local = tmp_path / "cameras"
    summary = build(local, 32, seed=3)
    Folder(f"{bucket}/cameras").fs.put(str(local) + "/", "field/cameras/", recursive=True)
    tables = f"{bucket}/tables"

    ingested = cluster.resight("ingest", f"{bucket}/cameras", tables=tables)
    assert ingested.returncode == 0, ingested.stderr
    report = cluster.reprocess("--model", "ssdlite-coco", "--chunk", "8", tables=tables)
    assert report["counts"]["requested"] == summary.unique_files
    assert report["counts"]["failed"] == len(summary.expected_failures)
    assert cluster.reprocess("--model", "ssdlite-coco", tables=tables)["counts"]["reused"] == (
        summary.unique_files
    )

    here = str(tmp_path / "tables")
    assert cluster.resight("ingest", str(local), tables=here).returncode == 0
    cluster.reprocess("--model", "ssdlite-coco", tables=here)
    sql = "select media_sha256, status, detections from all_results order by media_sha256"
    assert query(Tables(tables), sql).to_pylist() == query(Tables(here), sql).to_pylist()


def test_a_model_store_on_s3_serves_the_same_bytes(cluster: Any, s3_endpoint: str) -> None:
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="models")
    here, there = ModelStore(cluster.settings.models_url), ModelStore("s3://models/store")
    version = version_id("ssdlite-coco", "1")
    found = here.verify(version)
    there.publish(version, {name: here.read_file(found, name) for name in found.digests})
    there.set_alias("ssdlite-coco", "production", "1")
    assert there.verify(version) == found
    assert there.aliases("ssdlite-coco") == {"production": "1"}
