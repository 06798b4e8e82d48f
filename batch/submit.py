"""Submit the job and follow its log; for the command line.

RunSpec --submit--> submission id of `python -m batch.reprocess …` --tail--> lines, then JobOutcome
Other runs are jobs of other modules: `submit_job`, JOBS.
The process must have joined the cluster (`serve.cluster.join`) before.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.job_log import LOOK_S, JobState, job_log
from batch.options import arguments
from batch.spec import RunSpec
from model_store.errors import BadRequest, ClusterError
from serve.cluster import read_state
from serve.settings import Settings

JOBS = ("batch.reprocess", "batch.classify", "batch.filters")
"""Modules whose command line names its run with --run-id."""
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
    def never_began(self) -> bool:
        """Ray gives up the package of the code with the last job that used it, also under the next one that
        found it there: that job fails before any of our code has run, and can be submitted again.
        """
        return self.status == "FAILED" and self.message.startswith("runtime_env setup failed")


def submit(spec: RunSpec, settings: Settings) -> str:
    """Of a run that detects. Raises as `submit_job`."""
    if spec.snips and read_state(settings) is None and not settings.snips:
        raise BadRequest(
            "--snips on the cluster of RESIGHT_ADDRESS: set RESIGHT_SNIPS to a place that its nodes see"
        )
    return submit_job("batch.reprocess", spec.run_id, arguments(spec), settings)


def submit_job(module: str, run_id: str, words: Sequence[str], settings: Settings) -> str:
    """`python -m MODULE WORDS` as the job of a run; `module` is one of JOBS, and the words name the run.

    Raises ClusterError when the cluster does not take the job, BadRequest.
    """
    if read_state(settings) is None and not (settings.models and settings.tables):
        raise BadRequest(
            "the cluster of RESIGHT_ADDRESS does not have this machine's folders: set RESIGHT_MODELS "
            "and RESIGHT_TABLES to places that its nodes see"
        )
    places = {
        "RESIGHT_HOME": str(settings.home_path),
        "RESIGHT_MODELS": settings.models_url,
        "RESIGHT_TABLES": settings.tables_url,
        "RESIGHT_SNIPS": settings.snips_url,
    }
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    runtime_env: dict[str, Any] = {"env_vars": passed | places}
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").exists():  # a checkout travels; an installed wheel is there
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
        raise ClusterError(f"the cluster did not take the job: {error}"[:1000]) from error


def _settled(client: Any, run_id: str) -> dict[str | None, Any]:
    """Status by id of Ray's jobs. One of this run that has told its report may still be taking itself down (`tail`):
    it is waited for a little.
    """
    until_s = time.monotonic() + TAKEN_DOWN_S
    while True:
        jobs = client.list_jobs()
        known = {job.submission_id: job.status for job in jobs}
        ours = [job for job in jobs if is_job_of(run_id, job.entrypoint)]
        if all(job.status.is_terminal() for job in ours) or time.monotonic() > until_s:
            return known
        time.sleep(0.5)


def free_submission_id(run_id: str, known: Mapping[str | None, Any]) -> str:
    """`resight-RUN_ID`, or with -2, -3 … when a run that ended is resumed by its id.

    `known` maps the ids of Ray's jobs to their `JobStatus`. Raises BadRequest while the run is at work.
    """
    for attempt in itertools.count(1):
        submission_id = f"resight-{run_id}" + (f"-{attempt}" if attempt > 1 else "")
        status = known.get(submission_id)
        if status is None:
            return submission_id
        if not status.is_terminal():
            raise BadRequest(
                f"run {run_id} is at work; watch it with 'resight runs attach {run_id}', stop it with "
                f"'resight runs cancel {run_id}', or leave out --run-id to start another"
            )
    raise AssertionError("unreachable")


def require_answer() -> None:
    """Raises ClusterError when no cluster answers."""
    try:
        _client().list_jobs()
    except _ray_errors() as error:
        raise ClusterError(f"the cluster does not answer: {error}"[:1000]) from error


def stop(run_id: str) -> str | None:
    """Stop the job of a run and wait for its end; its id, or None when none is alive. Raises ClusterError."""
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
                    f"job {', '.join(alive)} was told to stop {STOP_S} s ago and runs on"
                )
            time.sleep(0.2)
    except _ray_errors() as error:
        raise ClusterError(f"the cluster did not stop the job: {error}"[:1000]) from error
    return ", ".join(alive) or None


def job_of(run_id: str = "") -> tuple[str, str] | None:
    """Return a run and its newest job: of `run_id`, else of the newest run that is alive. None when there is none.

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
    """By the job's command line: ids of jobs do not tell run `a`, tried twice, from run `a-2`."""
    return run_id in runs_of(entrypoint)


def runs_of(entrypoint: str) -> list[str]:
    """The runs that the command line of a job names; none of a job that was not made here."""
    try:
        words = shlex.split(entrypoint)
    except ValueError:  # not made here
        return []
    pairs = list(itertools.pairwise(words))
    if not any(("-m", module) in pairs for module in JOBS):
        return []
    named = [word.removeprefix("--run-id=") for word in words if word.startswith("--run-id=")]
    return named + [value for option, value in pairs if option == "--run-id"]


def tail(
    submission_id: str, on_line: Callable[[str], None], enough: Callable[[], bool]
) -> JobOutcome:
    """Lines of the job's log as they come, then how it ended.

    Once there are `enough`, it counts as succeeded, and is not waited for: its processes take seconds to go, in which
    nothing is done. Raises ClusterError when the cluster does not answer for long.
    """
    client, state = _client(), read_state(Settings())
    logs = Path(state.logs) if state else None
    with contextlib.closing(JobState(client, submission_id)) as job:
        return asyncio.run(_tail(job, logs, on_line, enough))


async def _tail(
    job: JobState, logs: Path | None, on_line: Callable[[str], None], enough: Callable[[], bool]
) -> JobOutcome:
    """Nothing here waits for the cluster but the event loop, which Ctrl-C ends at once."""
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
    """What Ray's client raises: also OSError, of which requests' errors are, and one of its own for a token."""
    from ray.exceptions import RayError

    return RuntimeError, OSError, RayError


def _client() -> Any:
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.WARNING)  # which files Ray packs is no news to a user

    return JobSubmissionClient(os.environ["RAY_API_SERVER_ADDRESS"])
