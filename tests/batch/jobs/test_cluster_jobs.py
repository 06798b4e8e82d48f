"""Test the ids of a run's Ray jobs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import ray.job_submission
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

import batch.jobs.cluster_jobs
import batch.jobs.job_log
from batch.jobs.cluster_jobs import ClusterJobs, free_submission_id, runs_of
from model_store.errors import BadRequest, ClusterError
from serve.settings import Settings

COMMAND = "python -m batch.reprocess --model m --run-id {} --chunk 0"


@pytest.mark.parametrize(
    ("entrypoint", "is_ours"),
    [
        (COMMAND.format("r"), True),
        ("python -m batch.reprocess --run-id=r --model m", True),
        ("python -m batch.classify --model m --run-id r --view production", True),
        ("python -m batch.filters --run-id q --run-id r --spec {}", True),
        ("python -m other --run-id r --model batch.reprocess", False),
        (COMMAND.format("r-2"), False),
        ("python -m batch.reprocess --model --run-id --camera r", False),
        ("echo 'batch.reprocess", False),
        ("", False),
    ],
)
def test_a_job_is_of_the_run_that_its_command_names(entrypoint: str, is_ours: bool) -> None:
    assert ("r" in runs_of(entrypoint)) is is_ours


@dataclass
class Job:
    submission_id: str | None
    entrypoint: str
    status: JobStatus
    driver_node_id: str | None = None
    message: str = ""
    driver_exit_code: int | None = None


@dataclass
class Jobs:
    """Ray's client: stopped jobs end at the second query."""

    jobs: list[Job]
    stopped: list[str] = field(default_factory=list)
    looks: int = 0

    def list_jobs(self) -> list[Job]:
        return self.jobs

    def get_job_info(self, submission_id: str) -> Job:
        return next(job for job in self.jobs if job.submission_id == submission_id)

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        yield f"{submission_id} began\n"

    def stop_job(self, submission_id: str) -> None:
        self.stopped.append(submission_id)

    def get_job_status(self, submission_id: str) -> JobStatus:
        self.looks += 1
        ended = submission_id in self.stopped and self.looks > 1
        return JobStatus.STOPPED if ended else JobStatus.RUNNING


@pytest.mark.parametrize(
    ("jobs", "wanted"),
    [
        ([], "resight-r"),
        ([("resight-r2", "r2", JobStatus.RUNNING), (None, "r", JobStatus.RUNNING)], "resight-r"),
        ([("resight-r", "r", JobStatus.FAILED)], "resight-r-2"),
        ([("resight-r", "r", JobStatus.STOPPED), ("resight-r-2", "r", JobStatus.SUCCEEDED)], "resight-r-3"),
        ([("resight-r", "r", JobStatus.STOPPED), ("resight-r-2", "r-2", JobStatus.RUNNING)], "resight-r-3"),
        ([("resight-r", "r", JobStatus.FAILED), ("resight-r-2", "r", JobStatus.PENDING)], "r is running"),
        ([("resight-q", "q --run-id r", JobStatus.RUNNING)], "r is running"),
    ],
)
def test_a_run_that_ended_is_resumed_under_the_next_id(jobs: list[tuple[Any, str, JobStatus]], wanted: str) -> None:
    """A run is running only if a job of it is, whatever the id of that job."""
    records = [Job(name, COMMAND.format(run), status) for name, run, status in jobs]
    if wanted.endswith("is running"):
        with pytest.raises(BadRequest, match=f"run {wanted}.*resight runs cancel r"):
            free_submission_id("r", records)
    else:
        assert free_submission_id("r", records) == wanted


def cluster(monkeypatch: pytest.MonkeyPatch, *jobs: Job) -> Jobs:
    client = Jobs(list(jobs))
    monkeypatch.setattr(batch.jobs.cluster_jobs, "_client", lambda: client)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return client


def test_the_job_of_a_run_that_is_alive_is_stopped_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    client = cluster(
        monkeypatch,
        Job("resight-r", COMMAND.format("r"), JobStatus.FAILED),
        Job("resight-r-2", COMMAND.format("r"), JobStatus.RUNNING),
        Job("resight-r-2-2", COMMAND.format("r-2"), JobStatus.RUNNING),
        Job(None, COMMAND.format("r"), JobStatus.RUNNING),
    )
    assert ClusterJobs(Settings()).stop("r") == "resight-r-2"
    assert client.stopped == ["resight-r-2"]
    assert client.looks == 2


def test_a_job_whose_node_is_lost_is_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's record of it stays RUNNING after the loss of the head."""
    cluster(
        monkeypatch,
        Job("resight-r", COMMAND.format("r"), JobStatus.RUNNING, "lost"),
        Job("resight-q", COMMAND.format("q"), JobStatus.RUNNING, "here"),
        Job("resight-p", COMMAND.format("p"), JobStatus.PENDING),
    )
    monkeypatch.setattr(batch.jobs.cluster_jobs, "_nodes", lambda: {"here"})
    assert ClusterJobs(Settings()).running() == {"q", "p"}
    assert ClusterJobs(Settings()).stop("r") is None


def test_a_followed_job_ends_with_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head was stopped in order, and came back: its log ended without an error."""
    lines: list[str] = []
    cluster(monkeypatch, Job("resight-r", COMMAND.format("r"), JobStatus.RUNNING, "lost"))
    monkeypatch.setattr(batch.jobs.cluster_jobs, "_nodes", lambda: {"here"})
    monkeypatch.setattr(batch.jobs.job_log, "ASK_S", 0.005)
    monkeypatch.setattr(batch.jobs.job_log, "SETTLE_S", 0.01)
    outcome = ClusterJobs(Settings()).tail("resight-r", lines.append, lambda: False)
    assert lines == ["resight-r began"]
    assert (outcome.status, outcome.message) == ("FAILED", batch.jobs.cluster_jobs.LOST)


def test_a_job_that_does_not_stop_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    client = cluster(monkeypatch, Job("resight-r", COMMAND.format("r"), JobStatus.PENDING))
    monkeypatch.setattr(client, "get_job_status", lambda _: JobStatus.RUNNING)
    monkeypatch.setattr(batch.jobs.cluster_jobs, "STOP_S", -1)
    with pytest.raises(ClusterError, match="job resight-r is still running"):
        ClusterJobs(Settings()).stop("r")


@pytest.mark.parametrize("error", [AuthenticationError("no token"), OSError("no route")])
def test_what_ray_s_client_raises_is_an_error_of_the_cluster(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def away() -> Jobs:
        raise error

    monkeypatch.setattr(batch.jobs.cluster_jobs, "_client", away)
    for act in (ClusterJobs(Settings()).running, lambda: ClusterJobs(Settings()).stop("r")):
        with pytest.raises(ClusterError, match=r"no token|no route"):
            act()


def test_a_job_gets_the_place_and_never_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}

    class Client(Jobs):
        def submit_job(self, runtime_env: dict[str, dict[str, str]], **_: object) -> str:
            told.update(runtime_env["env_vars"])
            return "resight-r"

    monkeypatch.setattr(batch.jobs.cluster_jobs, "_client", lambda: Client([]))
    places = {"models": "s3://b/models", "tables": "s3://b/tables", "policy": "/team/policy.toml"}
    settings = Settings(home="/h", **places)
    passed = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
    for name in (*passed, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"of {name}")
    ClusterJobs(settings).submit("batch.reprocess", "r", ["--run-id", "r"], followed=True)
    assert {n: v for n, v in told.items() if n.startswith("AWS_")} == {n: f"of {n}" for n in passed}
    assert {n: told[f"RESIGHT_{n.upper()}"] for n in places} == places
    assert "RESIGHT_SNIPS" not in told  # the nodes may have a shared place


def test_a_client_silences_the_packing_of_files_and_waits_no_longer_than_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    body = {"ray_version": ray.__version__}
    answer = SimpleNamespace(status_code=200, text="", json=lambda: body, raise_for_status=lambda: None)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setattr("requests.request", lambda *_, timeout, **__: waits.append(timeout) or answer)
    assert batch.jobs.cluster_jobs._client().get_version() is None
    assert set(waits) == {batch.jobs.job_log.SILENT_S}
    names = (*batch.jobs.cluster_jobs.PACKING, "ray.serve", "uvicorn.access")
    heard = [name for name in names if logging.getLogger(name).isEnabledFor(logging.WARNING)]
    assert heard == ["ray.serve", "uvicorn.access"]


def test_a_log_on_another_machine_is_read_through_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state file of the cluster is not in this home, so its logs are elsewhere."""
    facts = {"submission_id": "resight-r", "start_time": 1, "status": JobStatus.RUNNING}
    job = SimpleNamespace(**facts, driver_node_id=None, entrypoint=COMMAND.format("r"))
    client = SimpleNamespace(list_jobs=lambda: [job], get_job_logs=lambda _: "one\ntwo\n")
    monkeypatch.setattr(batch.jobs.cluster_jobs, "_client", lambda: client)
    part = ClusterJobs(Settings()).log("r", 4, 100)
    assert part is not None
    assert (part.text, part.next) == ("two\n", 8)
    assert ClusterJobs(Settings()).log("another", None, 100) is None
