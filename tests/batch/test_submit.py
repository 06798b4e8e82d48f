"""Ids under which Ray knows the jobs of a run."""

from __future__ import annotations

import pytest
from ray.job_submission import JobStatus

from batch.submit import free_submission_id
from model_store.errors import BadRequest


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({}, "resight-r"),
        ({"resight-r2": JobStatus.RUNNING, None: JobStatus.RUNNING}, "resight-r"),
        ({"resight-r": JobStatus.FAILED}, "resight-r-2"),
        ({"resight-r": JobStatus.STOPPED, "resight-r-2": JobStatus.SUCCEEDED}, "resight-r-3"),
    ],
)
def test_a_run_that_ended_is_resumed_under_the_next_id(
    known: dict[str | None, JobStatus], wanted: str
) -> None:
    assert free_submission_id("r", known) == wanted


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING])
def test_a_run_at_work_is_not_started_again(status: JobStatus) -> None:
    with pytest.raises(BadRequest, match="ray job stop resight-r-2"):
        free_submission_id("r", {"resight-r": JobStatus.FAILED, "resight-r-2": status})
