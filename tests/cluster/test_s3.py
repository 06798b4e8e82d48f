"""Archive, tables and models on an S3 server: the same job, the same rows, also if another node decodes."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from examples.sample_archive import Summary
from model_store.names import version_id
from model_store.storage import Folder
from model_store.store import ModelStore
from tests.cluster.hosts import Cluster, Finished, Host, results_of
from tests.cluster.nodes import RESOURCE, decoding_node, replica_nodes
from tests.fixtures_local import MODELS

pytestmark = pytest.mark.cluster


def test_the_job_runs_against_an_s3_archive_and_s3_tables(
    host: Host, s3_endpoint: str, archive: tuple[Path, Summary], undisturbed: Finished, tmp_path: Path
) -> None:
    """On a cluster, images are decoded on a node that has no replica."""
    local, summary = archive
    bucket = f"field-{uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    url, tables = f"s3://{bucket}/cameras", f"s3://{bucket}/tables"
    Folder(url).fs.put(f"{local}/", f"{bucket}/cameras/", recursive=True)

    host.done("ingest", url, tables=tables)
    words = ("--model", "ssdlite-coco", "--chunk", "8")
    if isinstance(host, Cluster):
        with decoding_node(host, tmp_path) as node:
            report = host.reprocess(*words, "--decode-on", RESOURCE, tables=tables)
            replicas = replica_nodes(host)
        assert report["stages"]["images_by_node"] == {node: summary.unique_files}
        assert replicas
        assert node not in replicas
    else:
        report = host.reprocess(*words, tables=tables)
    assert report["counts"]["requested"] == summary.unique_files
    assert report["counts"]["failed"] == len(summary.expected_failures)
    again = host.reprocess("--model", "ssdlite-coco", tables=tables)
    assert again["counts"]["reused"] == summary.unique_files
    assert results_of(tables) == results_of(undisturbed.tables)


def test_a_model_store_on_s3_serves_the_same_bytes(s3_endpoint: str) -> None:
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="models")
    here, there = ModelStore(str(MODELS)), ModelStore("s3://models/store")
    version = version_id("ssdlite-coco", "1")
    found = here.verify(version)
    there.publish(version, {name: here.read_file(found, name) for name in found.digests})
    there.set_alias("ssdlite-coco", "production", "1")
    assert there.verify(version) == found
    assert there.aliases("ssdlite-coco") == {"production": "1"}
