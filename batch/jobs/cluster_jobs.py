"""Jobs of a Ray cluster.

submit --> submission id of `python -m MODULE --run-id ID --spec JSON` --tail--> lines of its log, then JobOutcome
The spec is not a file below the tables, because maybe only the nodes of the cluster can reach these.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from batch.jobs.control import STOP_S, JobOutcome, continuing_words, is_running_words
from batch.jobs.job_log import LOOK_S, SILENT_S, JobState, LogPart, job_log, read_part
from model_store.errors import BadRequest, ClusterError
from serve.cluster.deploy import require_dashboard
from serve.cluster.head import read_state
from serve.settings import Settings

JOBS = ("batch.reprocess", "batch.classify", "batch.embed", "batch.filters")
"""Modules with --run-id on their command line."""
PACKING = (
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
    "ray.dashboard.modules.dashboard_sdk",
)
"""Ray's loggers that list the files which it packs and uploads; no concern of a command's output."""
LOST = "the node of its process was lost; finished results are kept, and the same command does the rest"
TAKEN_DOWN_S = 10.0
MAX_NODES = 10_000
PASSED_ON = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


class ClusterJobs:
    """Implements `batch.jobs.control.Jobs`. The process must have joined the cluster (`serve.cluster.head.join`)."""

    def __init__(self, settings: Settings) -> None:
        state = read_state(settings)
        self._settings, self._state = settings, state
        self.where = f"runs on the cluster at {state.endpoint if state else settings.address}"

    def submit(self, module: str, run_id: str, words: Sequence[str], followed: bool) -> str:
        """Submit the job. `module` is one of JOBS, and the words include --run-id.

        Raises ClusterError if the cluster does not accept the job. Raises BadRequest if the run is running, or the
        cluster needs places that are not set.
        """
        settings = self._settings
        if self._state is None and not (settings.models and settings.tables):
            raise BadRequest(
                "the cluster of RESIGHT_ADDRESS does not have this machine's folders: set RESIGHT_MODELS "
                "and RESIGHT_TABLES to places that its nodes can reach"
            )
        command = shlex.join(["python", "-P", "-m", module, *words])  # -P: only our own packages
        with _errors_as("the cluster did not accept the job"):
            client = _client()
            return client.submit_job(
                entrypoint=command,
                submission_id=free_submission_id(run_id, _settled(client, run_id)),
                runtime_env=_runtime_env(settings),
            )

    def tail(self, job: str, on_line: Callable[[str], None], enough: Callable[[], bool]) -> JobOutcome:
        """Call `on_line` with each line of the job's log, and return how the job ended.

        Once `enough()` is true, the job counts as succeeded without waiting for its processes, which take seconds to
        end. Raises ClusterError if the cluster does not answer for long.
        """
        logs = Path(self._state.logs) if self._state else None
        with contextlib.closing(JobState(_client(), job, _settle)) as state:
            return asyncio.run(_tail(state, logs, on_line, enough))

    def stop(self, run_id: str) -> str | None:
        """Stop the job of a run and wait for its end; return its id, or None without one. Raises ClusterError."""
        with _errors_as("the cluster did not stop the job"):
            client = _client()
            alive = _running(_records(client), run_id)
            for submission_id in alive:
                client.stop_job(submission_id)
            deadline = time.monotonic() + STOP_S
            while any(not client.get_job_status(job).is_terminal() for job in alive):
                if time.monotonic() > deadline:
                    raise ClusterError(f"job {', '.join(alive)} is still running {STOP_S} s after it was stopped")
                time.sleep(0.2)
        return ", ".join(alive) or None

    def job_of(self, run_id: str = "") -> tuple[str, str] | None:
        jobs = sorted(_jobs(), key=lambda job: job.start_time or 0, reverse=True)
        for job in jobs:
            runs = runs_of(job.entrypoint) if job.submission_id else []
            if run_id in runs or (not run_id and runs and not job.status.is_terminal()):
                return run_id or runs[0], job.submission_id
        return None

    def log(self, run_id: str, after: int | None, max_bytes: int) -> LogPart | None:
        """Read the log from its file if that is on this machine, else from the dashboard. Raises ClusterError."""
        found = self.job_of(run_id)
        if found is None:
            return None
        job = found[1]
        with contextlib.suppress(FileNotFoundError):
            logs = Path(self._state.logs if self._state else "")
            with (logs / f"job-driver-{job}.log").open("rb") as log:
                return read_part(job, log, after, max_bytes)
        with _errors_as("the cluster does not send the log"):
            text = _client().get_job_logs(job)
        return read_part(job, io.BytesIO(text.encode()), after, max_bytes)

    def running(self) -> set[str]:
        alive = [job for job in _jobs() if not job.status.is_terminal()]
        return {run for job in alive for run in runs_of(job.entrypoint)}

    def interrupted(self, run_ids: Sequence[str]) -> str:
        """Let the runs continue: they belong to the cluster."""
        return continuing_words(run_ids)


def _jobs() -> list[Any]:
    """Return Ray's records of its jobs. Raises ClusterError."""
    with _errors_as("the cluster does not answer"):
        return _records(_client())


def _records(client: Any) -> list[Any]:
    """Return Ray's records of its jobs, settled."""
    jobs = list(client.list_jobs())
    _settle(jobs)
    return jobs


def _settle(jobs: Sequence[Any]) -> None:
    """Mark a job as failed if its node is lost, and with it the process of the run. Raises Ray's errors.

    After the loss of a head, Ray itself notices that only when it gets the next job.
    """
    from ray.job_submission import JobStatus

    if open_jobs := [job for job in jobs if job.driver_node_id and not job.status.is_terminal()]:
        nodes = _nodes()
        for job in open_jobs:
            if job.driver_node_id not in nodes:
                job.status, job.message = JobStatus.FAILED, LOST


def _nodes() -> set[str]:
    """Return the ids of the nodes that are alive. Raises Ray's errors."""
    from ray.util.state import list_nodes

    # without a filter by state: Ray takes rows that it leaves out for lost ones, and raises
    found: list[Any] = list_nodes(os.environ["RAY_API_SERVER_ADDRESS"], limit=MAX_NODES)
    return {node.node_id for node in found if node.state == "ALIVE"}


def _runtime_env(settings: Settings) -> dict[str, Any]:
    places = {
        "RESIGHT_HOME": str(settings.home_path),
        "RESIGHT_MODELS": settings.models_url,
        "RESIGHT_TABLES": settings.tables_url,
    }
    if settings.snips:  # else the nodes may have a place
        places["RESIGHT_SNIPS"] = settings.snips_url
    if settings.policy:  # gates of the first publication
        places["RESIGHT_POLICY"] = str(settings.policy_path)
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    runtime_env: dict[str, Any] = {"env_vars": passed | places}
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").exists():  # nodes have an installed wheel already
        runtime_env["working_dir"] = str(checkout)
    return runtime_env


def _settled(client: Any, run_id: str) -> list[Any]:
    """Return Ray's records of its jobs. Wait up to TAKEN_DOWN_S for a job of this run that is still ending after its
    report (`tail`).
    """
    until_s = time.monotonic() + TAKEN_DOWN_S
    while True:
        jobs = _records(client)
        if not _running(jobs, run_id) or time.monotonic() > until_s:
            return jobs
        time.sleep(0.5)


def free_submission_id(run_id: str, jobs: Sequence[Any]) -> str:
    """Return `resight-RUN_ID`, or with -2, -3 … if an ended run is resumed by its id, or another run has that id.

    Raises BadRequest if the run is running.
    """
    if _running(jobs, run_id):
        raise BadRequest(is_running_words(run_id))
    taken = {job.submission_id for job in jobs}
    attempts = (f"resight-{run_id}" + (f"-{attempt}" if attempt > 1 else "") for attempt in itertools.count(1))
    return next(name for name in attempts if name not in taken)


def _running(jobs: Sequence[Any], run_id: str) -> list[str]:
    """Return the ids of the jobs of a run that have not ended."""
    ours = (job for job in jobs if job.submission_id and run_id in runs_of(job.entrypoint))
    return [job.submission_id for job in ours if not job.status.is_terminal()]


def runs_of(entrypoint: str) -> list[str]:
    """Return the runs in the command line of a job; none for jobs that are not ours.

    The id of a job does not identify a run: it is the same for run `a`, tried twice, and run `a-2`.
    """
    try:
        words = shlex.split(entrypoint.partition(" --spec ")[0])  # the rest may be long, or cut in a log
    except ValueError:  # not ours
        return []
    pairs = list(itertools.pairwise(words))
    if not any(("-m", module) in pairs for module in JOBS):
        return []
    named = [word.removeprefix("--run-id=") for word in words if word.startswith("--run-id=")]
    return named + [value for option, value in pairs if option == "--run-id"]


async def _tail(
    job: JobState, logs: Path | None, on_line: Callable[[str], None], enough: Callable[[], bool]
) -> JobOutcome:
    """Follow the log; only the event loop waits for the cluster, so that Ctrl-C ends it at once."""
    rest = ""
    async with contextlib.aclosing(job_log(job, logs)) as texts:
        async for text in texts:
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                on_line(line)
            if enough():
                return JobOutcome("SUCCEEDED", 0, "")
    while (info := job.end()) is None:
        await asyncio.sleep(LOOK_S)
    return JobOutcome(str(info.status.value), info.driver_exit_code, info.message or "")


@contextlib.contextmanager
def _errors_as(problem: str) -> Iterator[None]:
    """Raise ClusterError with the problem and the text of Ray's error."""
    try:
        yield
    except _ray_errors() as error:
        raise ClusterError(f"{problem}: {error}"[:1000]) from error


def _ray_errors() -> tuple[type[Exception], ...]:
    """Return the errors of Ray's client: OSError includes those of requests, RayError an invalid token."""
    from ray.exceptions import RayError
    from ray.util.state.exception import RayStateApiException

    return RuntimeError, OSError, RayError, RayStateApiException


def _client() -> Any:
    """Return Ray's client. Raises ClusterError if nothing answers at its address, and Ray's errors.

    Its requests raise an OSError after SILENT_S, except for the upload of a package; those of Ray have no timeout.
    """
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, *args: Any, **kwargs: Any) -> Any:
            timeout_s = None if method == "PUT" else SILENT_S
            return super()._do_request(method, *args, timeout=timeout_s, **kwargs)

    for name in PACKING:  # after the import, which sets their levels
        logging.getLogger(name).setLevel(logging.ERROR)
    address = os.environ["RAY_API_SERVER_ADDRESS"]
    try:
        return Client(address)
    except _ray_errors():
        require_dashboard(address)
        raise
