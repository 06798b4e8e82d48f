"""Submit the job and follow its log; for the command line.

RunSpec --submit--> submission id of `python -m batch.reprocess …` --tail--> lines, then JobOutcome
The process must have joined the cluster (`serve.cluster.join`) before.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.options import arguments
from batch.spec import RunSpec
from model_store.errors import BadRequest, ClusterError
from serve.cluster import read_state
from serve.settings import Settings

PASSED_ON = ("RESIGHT_HOME", "RESIGHT_MODELS", "RESIGHT_TABLES", "AWS_ENDPOINT_URL", "AWS_REGION")


@dataclass(frozen=True, slots=True)
class JobOutcome:
    status: str  # Ray's: SUCCEEDED, FAILED, STOPPED
    exit_code: int | None
    message: str


def submit(spec: RunSpec, settings: Settings) -> str:
    """Raises ClusterError when the cluster does not take the job, BadRequest."""
    if read_state(settings) is None and not (settings.models and settings.tables):
        raise BadRequest(
            "the cluster of RESIGHT_ADDRESS does not have this machine's folders: set RESIGHT_MODELS "
            "and RESIGHT_TABLES to places that its nodes see"
        )
    places = {
        "RESIGHT_HOME": str(settings.home_path),
        "RESIGHT_MODELS": settings.models_url,
        "RESIGHT_TABLES": settings.tables_url,
    }
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    runtime_env: dict[str, Any] = {"env_vars": passed | places}
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").exists():  # a checkout travels; an installed wheel is there
        runtime_env["working_dir"] = str(checkout)
    command = shlex.join(["python", "-m", "batch.reprocess", *arguments(spec)])
    try:
        client = _client()
        known = {job.submission_id: job.status for job in client.list_jobs()}
        return client.submit_job(
            entrypoint=command,
            submission_id=free_submission_id(spec.run_id, known),
            runtime_env=runtime_env,
        )
    except (RuntimeError, ConnectionError) as error:
        raise ClusterError(f"the cluster did not take the job: {error}"[:1000]) from error


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
                f"run {run_id} is at work; stop it with 'ray job stop {submission_id}', or leave out "
                "--run-id to start another"
            )
    raise AssertionError("unreachable")


async def tail(submission_id: str, on_line: Callable[[str], None]) -> JobOutcome:
    """Lines of the job's log as they come, then how it ended."""
    client = _client()
    rest = ""
    async for text in client.tail_job_logs(submission_id):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            on_line(line)
    while True:
        info = client.get_job_info(submission_id)
        if info.status.is_terminal():
            return JobOutcome(str(info.status.value), info.driver_exit_code, info.message or "")
        await asyncio.sleep(0.2)


def _client() -> Any:
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.WARNING)  # which files Ray packs is no news to a user

    return JobSubmissionClient(os.environ["RAY_API_SERVER_ADDRESS"])
