"""kill -9 of a run's driver, of the processes of its stage and of a replica: the table is that of an undisturbed run.

The undisturbed run is one of one process. A named pipe in place of an image keeps a run from its end until it is
opened, so every process dies in the middle of a run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import psutil
import pytest

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from batch.planning.passes import DetectPass
from batch.planning.plan import pinned, plan_pass
from batch.runs.scope import Scope
from examples.sample_archive import Summary
from model_store.store import ModelStore
from tests.cluster.hosts import ON_CLUSTER, WAIT_S, Cluster, Finished, Host, kill, report_of, results_of, wait_for
from tests.fixtures_local import MODELS, ROOT, photo, rows_of, write_files

pytestmark = pytest.mark.cluster
KILLED_AT = 8
PACE = ("--model", "ssdlite-coco", "--chunk", "2", "--threads", "1", "--commit-s", "0.1")
Archive = tuple[Path, Summary]


class Driver:
    """`python -m batch.reprocess FLAGS`, or another module like it, from a shell of this machine."""

    def __init__(self, host: Host, tables: str, module: str = "batch.reprocess") -> None:
        here = () if isinstance(host, Cluster) else ("--here",)
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *PACE, *here],
            cwd=ROOT,
            env=os.environ | host.environment | {"RESIGHT_TABLES": tables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def report(self) -> dict[str, Any]:
        """Return the report of a run that must succeed."""
        try:
            said, warned = self.process.communicate(timeout=WAIT_S)
        finally:
            self.process.kill()
        assert self.process.returncode == 0, said + warned
        assert all(line.startswith("{") for line in said.splitlines()), said  # also when Ray reports dead processes
        return report_of(said)


@pytest.fixture(scope="module")
def cameras(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the sample archive in a folder whose files may be replaced."""
    return Path(shutil.copytree(archive[0], tmp_path_factory.mktemp("crash") / "cameras"))


@pytest.fixture(scope="module")
def catalogue(cameras: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables with media of that folder and nothing else; only to copy."""
    tables = tmp_path_factory.mktemp("crash") / "tables"
    ingest(Tables(str(tables)), str(cameras))
    return tables


@pytest.fixture(scope="module")
def late(catalogue: Path, cameras: Path) -> Path:
    """An image that runs read when three quarters are done."""
    work = DetectPass(pinned(ModelStore(str(MODELS)), "ssdlite-coco"))
    plan = plan_pass(Tables(str(catalogue)), work, Scope())
    (window,) = plan.windows(1000)
    rows = window.to_pylist()[len(window) * 3 // 4 :]
    return cameras / next(row["path"] for row in rows if not row["elsewhere"])


@pytest.fixture
def tables(catalogue: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(catalogue, tmp_path / "tables"))


@pytest.fixture
def s3_tables(s3_endpoint: str, catalogue: Path) -> str:
    """The same catalogue in a bucket."""
    bucket = f"crash-{uuid4().hex}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    for file in (one for one in catalogue.rglob("*") if one.is_file()):
        client.upload_file(str(file), bucket, f"tables/{file.relative_to(catalogue)}")
    return f"s3://{bucket}/tables"


@contextlib.contextmanager
def unread(image: Path) -> Iterator[None]:
    """Put a named pipe in place of the image: who opens it waits until the end of the block, and then reads again."""
    kept, pipe = image.with_name("kept"), image.with_name("pipe")
    image.rename(kept)
    os.mkfifo(image)
    try:
        yield
    finally:
        os.link(image, pipe)
        kept.replace(image)
        opened = os.open(pipe, os.O_RDWR)  # a reader that waits gets an error, and tries again
        pipe.unlink()
        os.close(opened)


@pytest.mark.parametrize(("host", "store"), [("one_process", "tables"), ("cluster", "s3_tables")], indirect=["host"])
def test_a_killed_job_is_gone_on_with(
    host: Host, request: pytest.FixtureRequest, late: Path, undisturbed: Finished, store: str
) -> None:
    """No process of a run on this machine is left."""
    tables: str = request.getfixturevalue(store)
    run_id = f"victim-{uuid4().hex}"
    with unread(late):
        host.done("reprocess", *PACE, "--run-id", run_id, "--no-follow", tables=tables)
        wait_for(lambda: committed(tables) >= KILLED_AT)
        drivers = [p for p in psutil.process_iter() if {"batch.reprocess", run_id} <= words_of(p)]
        stages = [] if isinstance(host, Cluster) else stages_of(drivers[0])
        assert bool(stages) != isinstance(host, Cluster)
        kill(drivers)
        assert not psutil.wait_procs(stages, WAIT_S)[1]
    there = committed(tables)
    assert there < len(results_of(undisturbed.tables)), "it was to die in its middle"
    counts = Driver(host, tables).report()["counts"]
    assert there <= counts["reused"] < counts["requested"]
    assert results_of(tables) == results_of(undisturbed.tables)
    states = Counter(row["state"] for row in rows_of(Tables(tables), "runs"))
    assert states == {"running": states["running"], "sealed": 1}
    assert states["running"] >= 2, "each start; a slow machine adds heartbeats"


def test_a_run_outlives_the_processes_of_its_stage(host: Host, tables: str, late: Path, undisturbed: Finished) -> None:
    """One after the other: on a cluster, a replica dies once the run has gone on without its worker."""
    with unread(late):
        driver = Driver(host, tables)
        for victim in ("StageActor", "ray::ServeReplica:detect:Detector"):
            least = committed(tables) + KILLED_AT
            wait_for(lambda least=least: committed(tables) >= least)
            if isinstance(host, Cluster):
                kill(host.processes(victim))
            else:
                kill(stages_of(psutil.Process(driver.process.pid)))
    assert driver.report()["counts"] == undisturbed.report["counts"]
    assert results_of(tables) == results_of(undisturbed.tables)
    wait_for(lambda: host.detect(photo("cat")).status_code == 200)


@ON_CLUSTER
def test_images_that_kill_their_reader_are_failed_rows_and_no_other_image_is(host: Host, tmp_path: Path) -> None:
    """Two of them, in two chunks, each read by a process that dies at once. A run of one process: test_here."""
    names = ["a-lethal.jpg", *(f"b-{i}.jpg" for i in range(6)), "z-lethal.jpg"]
    files = {name: photo("cat") + name.encode() for name in names}
    tables = str(tmp_path / "tables")
    ingest(Tables(tables), str(write_files(tmp_path / "cameras", files)))
    report = Driver(host, tables, module="tests.cluster.lethal").report()
    rows = rows_of(Tables(tables), "results")
    failed = [row for row in rows if row["status"] == "failed"]
    assert [row["error_code"] for row in failed] == ["crashed_reader"] * 2
    assert all("SIGSEGV" in row["error_detail"] for row in failed)
    counts = report["counts"]
    assert (counts["requested"], counts["ok"], counts["failed"]) == (len(names), len(names) - 2, 2)
    assert len(rows) == len(names)


def words_of(process: psutil.Process) -> set[str]:
    try:
        return set(process.cmdline())
    except psutil.Error:
        return set()


def stages_of(driver: psutil.Process) -> list[psutil.Process]:
    """Return the processes of the stage of a run on this machine."""
    return [c for c in driver.children() if "batch.pipeline.stage_process" in words_of(c)]


def committed(tables: str) -> int:
    results = Tables(tables).existing("results")
    return results.to_pyarrow_dataset().count_rows() if results else 0
