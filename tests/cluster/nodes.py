"""A second node of the cluster, of another kind: it can only read and decode, and has no replica."""

from __future__ import annotations

import contextlib
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

from tests.cluster.hosts import Cluster

RESOURCE = "decoding"


@contextlib.contextmanager
def decoding_node(cluster: Cluster, folder: Path) -> Iterator[str]:
    """Yield its id; it is a raylet of its own with a custom resource, and its log is in the folder."""
    before = node_ids(cluster)
    ray = Path(sys.executable).with_name("ray")
    place = Path(tempfile.mkdtemp(prefix="rs-node-"))  # its own: nodes unpack code into it
    log = folder / "log"
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
