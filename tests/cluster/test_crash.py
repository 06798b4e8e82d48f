"""kill -9 of a run's driver, of its worker and of a detector replica: the table is that of an undisturbed run.

The undisturbed run is one of the cluster, so runs on this machine (`--here`) are compared with it row by row.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import psutil
import pytest

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from examples.sample_archive import build
from tests.fixtures_local import rows_of

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES, KILLED_AT = 96, 16
PACE = ("--model", "ssdlite-coco", "--chunk", "4", "--threads", "1", "--commit-s", "0.1")
WAIT_S = 120
OF_THE_RUN = {"run_id", "finished_at", *(f"{n}_ms" for n in ("read", "decode", "queue"))} | {
    "inference_ms",
    "postprocess_ms",
}


class Driver:
    """`python -m batch.reprocess FLAGS`, or another module like it, from a shell of this machine."""

    def __init__(self, tables: str, *flags: str, module: str = "batch.reprocess") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *PACE, *flags],
            cwd=ROOT,
            env=os.environ | {"RESIGHT_TABLES": tables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=WAIT_S)

    def stages(self) -> list[psutil.Process]:
        """The processes of its stage, of a run on this machine."""
        children = psutil.Process(self._process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def report(self) -> dict[str, Any]:
        """Of a run that must succeed."""
        said, warned = self._process.communicate(timeout=WAIT_S)
        assert self._process.returncode == 0, said + warned
        events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        (report,) = [event for event in events if event["event"] == "report"]
        return report


@pytest.fixture(scope="module")
def catalogued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables with media and nothing else; only to copy."""
    place = tmp_path_factory.mktemp("crash")
    build(place / "cameras", IMAGES, seed=7)
    ingest(Tables(str(place / "tables")), str(place / "cameras"))
    return place / "tables"


@pytest.fixture
def tables(catalogued: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(catalogued, tmp_path / "tables"))


@pytest.fixture(scope="module")
def undisturbed(
    cluster: Any, catalogued: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    tables = str(shutil.copytree(catalogued, tmp_path_factory.mktemp("undisturbed") / "tables"))
    Driver(tables).report()
    return seen(tables)


@pytest.fixture
def s3_tables(s3_endpoint: str, catalogued: Path) -> str:
    """The same catalogue in a bucket."""
    bucket = f"crash-{uuid4().hex}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    for file in (one for one in catalogued.rglob("*") if one.is_file()):
        client.upload_file(str(file), bucket, f"tables/{file.relative_to(catalogued)}")
    return f"s3://{bucket}/tables"


def test_a_killed_job_is_gone_on_with(
    cluster: Any, tables: str, undisturbed: list[dict[str, Any]]
) -> None:
    words = ("reprocess", *PACE, "--run-id", "victim", "--no-follow")
    started = cluster.resight(*words, tables=tables)
    assert started.returncode == 0, started.stderr
    wait_for(lambda: committed(tables) >= KILLED_AT)
    drivers = processes(cluster, lambda words: {"batch.reprocess", "victim"} <= set(words))
    assert drivers
    for process in drivers:
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(drivers, WAIT_S)
    require_gone_on_with(tables, undisturbed)


@pytest.mark.parametrize(("store", "flags"), [("s3_tables", ()), ("tables", ("--here",))])
def test_a_killed_driver_is_gone_on_with(
    cluster: Any,
    request: pytest.FixtureRequest,
    undisturbed: list[dict[str, Any]],
    store: str,
    flags: tuple[str, ...],
) -> None:
    """A run on this machine leaves no process behind."""
    tables: str = request.getfixturevalue(store)
    driver = Driver(tables, *flags)
    wait_for(lambda: committed(tables) >= KILLED_AT)
    stages = driver.stages()
    driver.kill()
    assert not psutil.wait_procs(stages, WAIT_S)[1]
    assert bool(stages) == bool(flags)
    require_gone_on_with(tables, undisturbed, *flags)


def test_a_run_on_this_machine_outlives_the_process_of_its_stage(
    cluster: Any, tables: str, undisturbed: list[dict[str, Any]]
) -> None:
    driver = Driver(tables, "--here")
    for _ in range(2):
        least = committed(tables) + KILLED_AT
        wait_for(lambda least=least: committed(tables) >= least)
        (stage,) = driver.stages()
        stage.kill()
        assert committed(tables) < len(undisturbed), "it was to die in its middle"
    assert driver.report()["counts"]["requested"] == len(undisturbed)
    assert seen(tables) == undisturbed


@pytest.mark.parametrize("store", ["tables", "s3_tables"])
def test_a_run_outlives_its_worker_and_a_replica(
    cluster: Any,
    request: pytest.FixtureRequest,
    undisturbed: list[dict[str, Any]],
    store: str,
) -> None:
    """One after the other: the replica dies once the run has gone on without its worker."""
    tables: str = request.getfixturevalue(store)
    driver = Driver(tables)
    for title in ("StageActor", "ray::ServeReplica:detect:Detector"):
        least = committed(tables) + KILLED_AT
        wait_for(lambda least=least: committed(tables) >= least)
        victims = processes(cluster, lambda words, title=title: title in " ".join(words))
        assert victims, title
        for process in victims:
            os.kill(process.pid, signal.SIGKILL)
        assert committed(tables) < len(undisturbed), "it was to die in its middle"
    report = driver.report()
    assert report["counts"]["requested"] == len(undisturbed)
    assert seen(tables) == undisturbed
    photo = (ROOT / "examples" / "photos" / "cat.jpg").read_bytes()
    wait_for(lambda: cluster.detect(photo).status_code == 200)


@pytest.mark.parametrize("flags", [(), ("--here",)])
def test_images_that_kill_their_reader_are_failed_rows_and_no_other_image_is(
    cluster: Any, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Two of them, in two chunks, each read by a process that dies at once."""
    place = tmp_path / "lethal"
    build(place / "cameras", IMAGES, seed=7)
    cat = (ROOT / "examples" / "photos" / "cat.jpg").read_bytes()
    for name in ("a-lethal", "z-lethal"):
        (place / "cameras" / name).mkdir()
        (place / "cameras" / name / "1.jpg").write_bytes(cat + name.encode())
    tables = str(place / "tables")
    ingest(Tables(tables), str(place / "cameras"))
    report = Driver(tables, *flags, module="tests.cluster.lethal").report()
    rows = rows_of(Tables(tables), "results")
    codes = [row["error_code"] for row in rows if row["error_code"] == "crashed_reader"]
    assert len(codes) == 2
    assert all("SIGSEGV" in row["error_detail"] for row in rows if row["error_code"] in codes)
    counts = report["counts"]
    assert counts["requested"] == len(rows) == counts["ok"] + counts["empty"] + counts["failed"]
    assert counts["ok"] > 0


def test_rays_helpers_wait_for_their_turn_and_replicas_do_not(cluster: Any) -> None:
    """Also a replica that Ray has started again, of which the raylet that waits is the parent."""

    def found(*names: str) -> list[psutil.Process]:
        return processes(cluster, lambda words: any(name in " ".join(words) for name in names))

    (before,) = found("ServeReplica:detect:Detector")
    before.kill()
    psutil.wait_procs([before], WAIT_S)
    photo = (ROOT / "examples" / "photos" / "cat.jpg").read_bytes()
    wait_for(lambda: cluster.detect(photo).status_code == 200)
    (after,) = found("ServeReplica:detect:Detector")
    assert after.pid != before.pid
    for process in (after, *found("haproxy", "HAProxyManager")):
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER, process.cmdline()
    for process in found("gcs_server", "raylet/raylet"):
        assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH, process.cmdline()


def require_gone_on_with(tables: str, undisturbed: list[dict[str, Any]], *flags: str) -> None:
    there = committed(tables)
    assert there < len(undisturbed), "it was to die in its middle"
    counts = Driver(tables, *flags).report()["counts"]
    assert there <= counts["reused"] < counts["requested"] == len(undisturbed)
    assert seen(tables) == undisturbed
    states = sorted(row["state"] for row in rows_of(Tables(tables), "runs"))
    assert states == ["running", "running", "sealed"]


def processes(cluster: Any, is_one: Callable[[list[str]], bool]) -> list[psutil.Process]:
    """Of this cluster alone."""
    found: list[psutil.Process] = []
    for process in psutil.Process(cluster.state.pid).children(recursive=True):
        try:
            found += [process] if is_one(process.cmdline()) else []
        except psutil.NoSuchProcess:
            continue
    return found


def committed(tables: str) -> int:
    results = Tables(tables).existing("results")
    return results.to_pyarrow_dataset().count_rows() if results else 0


def seen(tables: str) -> list[dict[str, Any]]:
    """All rows by image, without what is of their run."""
    rows = [
        {name: value for name, value in row.items() if name not in OF_THE_RUN}
        for row in rows_of(Tables(tables), "results")
    ]
    assert len(rows) == len({row["media_sha256"] for row in rows})
    return sorted(rows, key=lambda row: row["media_sha256"])


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came to that"
        time.sleep(0.1)
