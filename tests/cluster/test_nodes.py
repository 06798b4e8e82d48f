"""Two nodes of different kinds: one has the replicas, the other can only read and decode."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.cluster.hosts import Cluster

pytestmark = pytest.mark.cluster
RESOURCE = "decoding"


@pytest.fixture(scope="module")
def decoding_node(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its id; a raylet of its own beside the head's, with a custom resource and no replica."""
    before = node_ids(cluster)
    ray = Path(sys.executable).with_name("ray")
    place = Path(tempfile.mkdtemp(prefix="rs-node-"))  # its own: nodes unpack code into it
    log = tmp_path_factory.mktemp("node") / "log"
    with log.open("wb") as output:
        node = subprocess.Popen(
            [
                *(str(ray), "start", "--block", "--disable-usage-stats", "--num-cpus=2"),
                f"--address={cluster.state.gcs_address}",
                f'--resources={{"{RESOURCE}": 1}}',
                "--object-store-memory=200000000",
                f"--temp-dir={place}",
            ],
            env=os.environ | {"RAY_worker_niceness": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while not (new := node_ids(cluster) - before):
            assert time.monotonic() < deadline, log.read_text()
            assert node.poll() is None, log.read_text()
            time.sleep(0.5)
        yield new.pop()
    finally:
        node.terminate()
        node.wait(30)
        shutil.rmtree(place, ignore_errors=True)


def state(cluster: Cluster, what: str) -> list[dict[str, Any]]:
    """Return `nodes` or `actors`, from Ray's dashboard."""
    headers = {"authorization": f"Bearer {cluster.settings.ray_token_path.read_text()}"}
    url = f"{cluster.state.dashboard_url}/api/v0/{what}"
    answer = httpx2.get(url, params={"limit": 1000}, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return [one for one in answer.json()["data"]["result"]["result"] if one["state"] == "ALIVE"]


def node_ids(cluster: Cluster) -> set[str]:
    return {node["node_id"] for node in state(cluster, "nodes")}


def replica_nodes(cluster: Cluster) -> set[str]:
    actors = state(cluster, "actors")
    return {a["node_id"] for a in actors if a["class_name"].startswith("ServeReplica")}


def test_decoding_is_done_on_other_nodes_than_inference(cluster: Cluster, decoding_node: str, catalogued: str) -> None:
    pace = ("--model", "ssdlite-coco", "--chunk", "4", "--latest-per-camera")
    report = cluster.reprocess(*pace, "--decode-on", RESOURCE, tables=catalogued)
    assert report["stages"]["images_by_node"] == {decoding_node: report["counts"]["requested"]}
    nodes = replica_nodes(cluster)
    assert nodes
    assert decoding_node not in nodes
