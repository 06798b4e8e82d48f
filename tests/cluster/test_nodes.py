"""Two nodes of different kinds: one has the replicas, the other can only read and decode."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.sample_archive import build

pytestmark = pytest.mark.cluster
RESOURCE = "decoding"


@pytest.fixture(scope="module")
def decoding_node(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its id; a raylet of its own beside the head's, with a custom resource and no replica."""
    before = set(node_ids(cluster))
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
        while not (new := set(node_ids(cluster)) - before):
            assert time.monotonic() < deadline, log.read_text()
            assert node.poll() is None, log.read_text()
            time.sleep(0.5)
        yield new.pop()
    finally:
        node.terminate()
        node.wait(30)
        shutil.rmtree(place, ignore_errors=True)


def told(cluster: Any, what: str) -> Any:
    """Of Ray's state, by a process of its own: Ray reads the token when it is imported, here long ago."""
    code = (
        "import json, sys; from ray.util.state import list_actors, list_nodes; "
        f"print(json.dumps([{what}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, cluster.state.dashboard_url],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def node_ids(cluster: Any) -> list[str]:
    found: list[str] = told(
        cluster, "n.node_id for n in list_nodes(sys.argv[1]) if n.state == 'ALIVE'"
    )
    return found


def replica_nodes(cluster: Any) -> set[str]:
    mine = "a.class_name.startswith('ServeReplica') and a.state == 'ALIVE'"
    return set(told(cluster, f"a.node_id for a in list_actors(sys.argv[1], limit=1000) if {mine}"))


def test_decoding_is_done_on_other_nodes_than_inference(
    cluster: Any, decoding_node: str, tmp_path: Path
) -> None:
    archive, tables = tmp_path / "cameras", str(tmp_path / "tables")
    build(archive, 48, seed=11)
    assert cluster.resight("ingest", str(archive), tables=tables).returncode == 0
    pace = ("--model", "ssdlite-coco", "--chunk", "4")
    report = cluster.reprocess(*pace, "--decode-on", RESOURCE, tables=tables)
    assert report["stages"]["images_by_node"] == {decoding_node: report["counts"]["requested"]}
    assert decoding_node not in replica_nodes(cluster)
