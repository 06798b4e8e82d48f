"""Jobs as processes of this machine: their logs, their ends, and what other processes see of them."""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

import batch.jobs.entry
from archive.delta.tables import Tables
from batch.jobs.cluster_jobs import JOBS
from batch.jobs.control import JobOutcome, ended_here, jobs_of
from batch.jobs.own_jobs import OwnJobs, is_locked, main_of
from model_store.errors import BadRequest, ClusterError, RunStalled
from serve.settings import Settings
from tests.fixtures_local import put_rows
from tests.support.jobs import FakeJobs

JOB = "tests.batch.jobs.waiting_job"
WAIT_S = 60


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnJobs]:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("batch.jobs.own_jobs.END_S", 0.2)
    jobs = OwnJobs(Settings(), "here")
    yield jobs
    for run_id in jobs.running():
        jobs.stop(run_id)


def others() -> OwnJobs:
    """The jobs as another process sees them: it has started none."""
    return OwnJobs(Settings(), "here")


def start(jobs: OwnJobs, run_id: str, how: str = "waits") -> str:
    return jobs.submit(JOB, run_id, ["--how", how, "--run-id", run_id], followed=False)


def events(jobs: OwnJobs, job: str) -> tuple[JobOutcome, list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    outcome = jobs.tail(
        job, lambda line: lines.append(json.loads(line)) if line else None, lambda: lines[-1]["event"] == "report"
    )
    return outcome, lines


def wait_for(is_so: Callable[[], object]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < until_s, "it never came to that"
        time.sleep(0.05)


def record(run_id: str, state: str = "running", event: int = 0) -> None:
    row = {"run_id": run_id, "event": event, "state": state, "event_at": datetime.now(UTC)}
    put_rows(Tables(Settings().tables_url), "runs", row)


def killed() -> set[str]:
    return ended_here(Settings(), Tables(Settings().tables_url))


def began(jobs: OwnJobs, run_id: str) -> bool:
    return any('"began"' in path.read_text() for path in jobs.log_files(run_id))


def test_without_a_cluster_the_jobs_are_those_of_this_machine(jobs: OwnJobs) -> None:
    assert isinstance(jobs_of(Settings()), OwnJobs)
    assert "no cluster is up" in jobs_of(Settings()).where
    assert "--here" in jobs_of(Settings(), here=True).where


@pytest.mark.parametrize(("how", "code", "last"), [("ends", 0, "report"), ("fails", 4, "run_failed")])
def test_its_lines_and_its_end_reach_the_one_that_started_it_and_others(
    jobs: OwnJobs, how: str, code: int, last: str
) -> None:
    job = start(jobs, "r", how)
    for seen_by in (jobs, others()):
        outcome, lines = events(seen_by, job)
        assert [line["event"] for line in lines] == ["job", "began", last]
        assert (outcome.status, outcome.exit_code) == ("FAILED" if code else "SUCCEEDED", code)
    assert others().job_of("r") == ("r", "r")
    assert others().job_of() is None
    assert others().running() == set()


def test_a_running_job_is_seen_and_stopped_by_others(jobs: OwnJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created(self) + 3600)  # moves with the clock
    job = start(jobs, "r")
    assert others().running() == {"r"}
    assert others().job_of() == ("r", job)
    wait_for(lambda: began(jobs, "r"))
    assert others().stop("another") is None
    with monkeypatch.context() as patch:  # the process with its id is another user's
        patch.setattr(psutil.Process, "open_files", denied)
        patch.setattr("batch.jobs.own_jobs.STOP_S", 0)
        with pytest.raises(RunStalled):
            others().stop("r")
    assert others().stop("r") == job
    assert others().running() == set()
    assert events(jobs, job)[0] == JobOutcome("FAILED", 143, "exit code 143")
    assert events(others(), job)[0].exit_code is None


def denied(_: psutil.Process) -> None:
    raise psutil.AccessDenied


def test_a_run_is_started_again_once_it_has_ended_and_not_before(jobs: OwnJobs) -> None:
    start(jobs, "r")
    with pytest.raises(BadRequest, match="run r is running; follow it with 'resight runs attach r"):
        start(jobs, "r")
    jobs.stop("r")
    assert events(jobs, start(jobs, "r", "ends"))[0].exit_code == 0
    assert [path.name for path in sorted(jobs.log_files("r"))] == ["r-2.log", "r.log"]
    assert others().job_of("r") == ("r", "r-2")


def test_of_many_that_start_a_run_at_once_one_does(jobs: OwnJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = fcntl.flock

    def slowly(file: Any, operation: int) -> None:
        time.sleep(0.1 if operation == fcntl.LOCK_EX else 0)  # each has created its log by then
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", slowly)

    def started(_: int) -> bool:
        with contextlib.suppress(BadRequest):
            return bool(start(others(), "r"))
        return False

    with ThreadPoolExecutor(3) as threads:
        assert sum(threads.map(started, range(3))) == 1


def test_a_killed_job_is_not_running(jobs: OwnJobs) -> None:
    job = start(jobs, "r")
    (log,) = jobs.log_files("r")
    os.kill(json.loads(log.read_text().splitlines()[0])["pid"], signal.SIGKILL)
    outcome, _ = events(jobs, job)
    assert outcome.killed_by == "SIGKILL"
    assert not is_locked(log)
    assert others().stop("r") is None
    assert others().ended(since_s=time.time() - WAIT_S) == {"r"}
    assert others().ended(since_s=time.time() + WAIT_S) == set()
    assert killed() == set()  # it has recorded nothing
    record("r")
    assert killed() == {"r"}
    record("r", "sealed", 1)
    assert killed() == set()


def test_a_run_that_continues_in_another_job_or_on_another_machine_has_not_ended(
    jobs: OwnJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("r", "s"):
        events(jobs, start(jobs, run, "ends"))
    start(jobs, "r")
    record("r")
    record("s")
    assert killed() == {"s"}
    monkeypatch.setattr("batch.jobs.control.has_cluster", lambda _: True)
    for cluster, ended in ((FakeJobs(), {"s"}), (None, set[str]())):
        monkeypatch.setattr("batch.jobs.control.jobs_of", lambda _, cluster=cluster: cluster or no_answer())
        assert killed() == ended
    cluster = FakeJobs()
    cluster.alive = {"s"}
    monkeypatch.setattr("batch.jobs.control.jobs_of", lambda _: cluster)
    assert killed() == set()
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "another machine")
        assert others().ended(since_s=0) == set()


def no_answer() -> FakeJobs:
    raise ClusterError("refused")


def test_logs_of_jobs_that_ended_long_ago_are_removed_with_the_next_one(jobs: OwnJobs) -> None:
    for run_id in ("running", "old", "new"):
        start(jobs, run_id, "waits" if run_id == "running" else "ends")
    events(jobs, "old")
    events(jobs, "new")
    wait_for(lambda: "began" in jobs.log_files("running")[0].read_text())  # its last line
    for run_id in ("running", "old"):
        os.utime(jobs.log_files(run_id)[0], (0, 0))
    start(jobs, "next")
    assert [run for run in ("running", "old", "new", "next") if jobs.log_files(run)] == ["running", "new", "next"]


COMMAND = f"""
import signal
from batch.jobs.own_jobs import OwnJobs
from serve.settings import Settings

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests run in the background
jobs = OwnJobs(Settings(), "")
job = jobs.submit("{JOB}", "r", ["--run-id", "r"], followed=True)
print(jobs.tail(job, lambda line: None, bool).exit_code)
"""
"""A command that follows its job."""


@pytest.mark.parametrize("how", ["ends", "fails"])
def test_a_followed_job_runs_in_the_process_that_follows_it(
    jobs: OwnJobs, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(
        batch.jobs.entry, "lower_process_priority", lambda: None
    )  # these tests could not raise it again
    job = jobs.submit(JOB, "r", ["--how", how, "--run-id", "r"], followed=True)
    assert others().running() == {"r"}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        outcome, lines = events(jobs, job)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    last = "run_failed" if how == "fails" else "report"
    assert [line["event"] for line in lines] == ["began", last]
    assert outcome.exit_code == (4 if how == "fails" else 0)
    assert others().running() == set()
    _, kept = events(others(), job)
    assert kept[1:] == lines
    assert kept[0]["pid"] == os.getpid()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("module", JOBS)
def test_each_job_of_runs_can_be_followed(module: str) -> None:
    main = main_of(module)
    assert {"run_id", "here"} <= set(inspect.signature(main).parameters)


def test_a_followed_job_is_stopped_by_others(jobs: OwnJobs) -> None:
    command = subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, text=True)
    wait_for(lambda: began(jobs, "r"))
    assert others().stop("r") == "r"
    assert command.communicate(timeout=WAIT_S)[0] == "143\n"


def test_ctrl_c_ends_a_followed_job_with_its_command(jobs: OwnJobs) -> None:
    command = subprocess.Popen([sys.executable, "-c", COMMAND], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: began(jobs, "r"))
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=WAIT_S)[1].endswith("KeyboardInterrupt\n")
    assert others().running() == set()
    assert "run the same command again" in jobs.interrupted(["r"])
