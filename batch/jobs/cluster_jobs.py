"""Submit the job of a run and follow its log, for the command line.

spec --submit--> submission id of `python -m MODULE --run-id ID --spec JSON` --tail--> lines, then JobOutcome
The spec is not a file below the tables, because maybe only the nodes of the cluster can reach these.
Filter runs are jobs with several runs: `submit_job`.
The process must have joined the cluster (`serve.cluster.head.join`) before.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from archive.delta.tables import Tables
from batch.jobs.log_tail import LOOK_S, JobState, job_log
from batch.planning.plan import pinned
from batch.runs.options import arguments
from batch.runs.spec import PassSpec, RunSpec
from batch.schedule.archive_state import running_run
from model_store.errors import BadRequest, ClusterError, Conflict, ModelError, StorageError
from model_store.store import ModelStore
from serve.cluster.head import read_state
from serve.settings import Settings

JOBS = ("batch.reprocess", "batch.classify", "batch.filters")
"""Modules with --run-id on their command line."""
PACKING = (
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
    "ray.dashboard.modules.dashboard_sdk",
)
"""Ray's loggers that list the files which it packs and uploads; no concern of a command's output."""
STOP_S = 60
TAKEN_DOWN_S = 10.0
PASSED_ON = (
    *("RESIGHT_HOME", "RESIGHT_MODELS", "RESIGHT_TABLES"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
)


@dataclass(frozen=True, slots=True)
class JobOutcome:
    status: str  # Ray's: SUCCEEDED, FAILED, STOPPED
    exit_code: int | None
    message: str

    @property
    def killed_by(self) -> str | None:
        """Return the signal that killed the job, such as "SIGKILL"; None if it ended by itself or was stopped."""
        code = self.exit_code or 0
        number = -code if code < 0 else code - 128  # of Python, or of a shell
        stops = (signal.SIGINT, signal.SIGTERM)
        names = {each.value: each.name for each in signal.Signals if each not in stops}
        return names.get(number)

    @property
    def never_began(self) -> bool:
        """Return whether the job failed before any of our code ran, so that it can be submitted again.

        Ray deletes a code package with the last job that used it, even if the next job has already found it there.
        """
        return self.status == "FAILED" and self.message.startswith("runtime_env setup failed")


def submit(spec: PassSpec, settings: Settings) -> str:
    """Submit a run; return the id of the job. Raises what `submit_job` raises."""
    if (
        isinstance(spec, RunSpec)
        and spec.snips
        and read_state(settings) is None
        and not settings.snips
    ):
        raise BadRequest(
            "--snips on the cluster of RESIGHT_ADDRESS: set RESIGHT_SNIPS to a place that its nodes can reach"
        )
    return submit_job(spec.job, spec.run_id, arguments(spec), settings)


def submit_job(module: str, run_id: str, words: Sequence[str], settings: Settings) -> str:
    """Submit `python -m MODULE WORDS` as the job of a run; return its id.

    `module` is one of JOBS, and the words include --run-id. Raises ClusterError if the cluster does not accept the
    job. Raises BadRequest if the run is running, or the cluster needs places that are not set.
    """
    if read_state(settings) is None and not (settings.models and settings.tables):
        raise BadRequest(
            "the cluster of RESIGHT_ADDRESS does not have this machine's folders: set RESIGHT_MODELS "
            "and RESIGHT_TABLES to places that its nodes can reach"
        )
    places = {
        "RESIGHT_HOME": str(settings.home_path),
        "RESIGHT_MODELS": settings.models_url,
        "RESIGHT_TABLES": settings.tables_url,
        "RESIGHT_SNIPS": settings.snips_url,
    }
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    runtime_env: dict[str, Any] = {"env_vars": passed | places}
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").exists():  # nodes have an installed wheel already
        runtime_env["working_dir"] = str(checkout)
    command = shlex.join(["python", "-P", "-m", module, *words])  # -P: only our own packages
    try:
        client = _client()
        return client.submit_job(
            entrypoint=command,
            submission_id=free_submission_id(run_id, _settled(client, run_id)),
            runtime_env=runtime_env,
        )
    except _ray_errors() as error:
        raise ClusterError(f"the cluster did not accept the job: {error}"[:1000]) from error


def _settled(client: Any, run_id: str) -> dict[str | None, Any]:
    """Return the status of Ray's jobs by id. Wait up to TAKEN_DOWN_S for a job of this run that is still ending after
    its report (`tail`).
    """
    until_s = time.monotonic() + TAKEN_DOWN_S
    while True:
        jobs = client.list_jobs()
        statuses = {job.submission_id: job.status for job in jobs}
        ours = [job for job in jobs if is_job_of(run_id, job.entrypoint)]
        if all(job.status.is_terminal() for job in ours) or time.monotonic() > until_s:
            return statuses
        time.sleep(0.5)


def free_submission_id(run_id: str, known: Mapping[str | None, Any]) -> str:
    """Return `resight-RUN_ID`, or with -2, -3 … if an ended run is resumed by its id.

    `known` maps the ids of Ray's jobs to their `JobStatus`. Raises BadRequest if the run is running.
    """
    for attempt in itertools.count(1):
        submission_id = f"resight-{run_id}" + (f"-{attempt}" if attempt > 1 else "")
        status = known.get(submission_id)
        if status is None:
            return submission_id
        if not status.is_terminal():
            raise BadRequest(
                f"run {run_id} is running; follow it with 'resight runs attach {run_id}', stop it with "
                f"'resight runs cancel {run_id}', or leave out --run-id to start another"
            )
    raise AssertionError("unreachable")


def require_answer() -> None:
    """Raise ClusterError if no cluster answers."""
    try:
        _client().list_jobs()
    except _ray_errors() as error:
        raise ClusterError(f"the cluster does not answer: {error}"[:1000]) from error


def stop(run_id: str) -> str | None:
    """Stop the job of a run and wait for its end; return its id, or None without one. Raises ClusterError."""
    try:
        client = _client()
        alive = [
            job.submission_id
            for job in client.list_jobs()
            if job.submission_id
            and not job.status.is_terminal()
            and is_job_of(run_id, job.entrypoint)
        ]
        for submission_id in alive:
            client.stop_job(submission_id)
        deadline = time.monotonic() + STOP_S
        while any(not client.get_job_status(job).is_terminal() for job in alive):
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"job {', '.join(alive)} is still running {STOP_S} s after it was stopped"
                )
            time.sleep(0.2)
    except _ray_errors() as error:
        raise ClusterError(f"the cluster did not stop the job: {error}"[:1000]) from error
    return ", ".join(alive) or None


def require_alone(spec: RunSpec, tables: Tables, store: ModelStore) -> None:
    """Raise Conflict if another run of the same model version is running as a job of the cluster, or ClusterError.

    A run that was killed has no such job, and does not keep another from its images. Without access to the tables or
    the model, which only the cluster's nodes may have, nothing is checked.
    """
    try:
        jobs = [job for job in _client().list_jobs() if not job.status.is_terminal()]
    except _ray_errors() as error:
        raise ClusterError(f"the cluster does not answer: {error}"[:1000]) from error
    runs = {run for job in jobs for run in runs_of(job.entrypoint)} - {spec.run_id}
    run = None
    with contextlib.suppress(ModelError, StorageError):
        model = pinned(store, spec.model)
        run = running_run(tables, model.info.inference_key, datetime.now(UTC), runs)
    if run:
        raise Conflict(
            f"run {run} of the same model is running, and images of both runs would be processed twice: follow it with "
            f"'resight runs attach {run}', or start this one too with --allow-concurrent"
        )


def job_of(run_id: str = "") -> tuple[str, str] | None:
    """Return a run and its newest job: of `run_id`, else of the newest running run. None if there is none.

    Raises ClusterError.
    """
    try:
        jobs = sorted(_client().list_jobs(), key=lambda job: job.start_time or 0, reverse=True)
    except _ray_errors() as error:
        raise ClusterError(f"the cluster does not answer: {error}"[:1000]) from error
    for job in jobs:
        runs = runs_of(job.entrypoint) if job.submission_id else []
        if run_id in runs or (not run_id and runs and not job.status.is_terminal()):
            return run_id or runs[0], job.submission_id
    return None


def is_job_of(run_id: str, entrypoint: str) -> bool:
    """Look for the run in the job's command line: job ids are the same for run `a`, tried twice, and run `a-2`."""
    return run_id in runs_of(entrypoint)


def runs_of(entrypoint: str) -> list[str]:
    """Return the runs in the command line of a job; none for jobs that are not ours."""
    try:
        words = shlex.split(
            entrypoint.partition(" --spec ")[0]
        )  # the rest may be long, or cut in a log
    except ValueError:  # not ours
        return []
    pairs = list(itertools.pairwise(words))
    if not any(("-m", module) in pairs for module in JOBS):
        return []
    named = [word.removeprefix("--run-id=") for word in words if word.startswith("--run-id=")]
    return named + [value for option, value in pairs if option == "--run-id"]


def tail(
    submission_id: str, on_line: Callable[[str], None], enough: Callable[[], bool]
) -> JobOutcome:
    """Call `on_line` with each line of the job's log, and return how the job ended.

    Once `enough()` is true, the job counts as succeeded without waiting for its processes, which take seconds to end.
    Raises ClusterError if the cluster does not answer for long.
    """
    client, state = _client(), read_state(Settings())
    logs = Path(state.logs) if state else None
    with contextlib.closing(JobState(client, submission_id)) as job:
        return asyncio.run(_tail(job, logs, on_line, enough))


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


def _ray_errors() -> tuple[type[Exception], ...]:
    """Return the errors of Ray's client: OSError includes those of requests, RayError an invalid token."""
    from ray.exceptions import RayError

    return RuntimeError, OSError, RayError


def _client() -> Any:
    from ray.job_submission import JobSubmissionClient

    for name in PACKING:  # after the import, which sets their levels
        logging.getLogger(name).setLevel(logging.ERROR)
    return JobSubmissionClient(os.environ["RAY_API_SERVER_ADDRESS"])
