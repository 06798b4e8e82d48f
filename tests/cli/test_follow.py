"""A job that was submitted, to its end: its lines, its reports, a second try, its exit code; no cluster is started."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import typer

import batch.submit
import cli.follow
import cli.follow_jobs
from batch.submit import JobOutcome
from cli.follow import Followed, follow, to_end
from cli.follow_jobs import follow_several

WELL = JobOutcome("SUCCEEDED", 0, "")
NEVER = JobOutcome("FAILED", None, "runtime_env setup failed: the package is gone")
PROGRESS = {"event": "progress", "requested": 2, "ok": 1, "images_per_s": 3.0}
PARTS = {"event": "filter_progress", "parts": 1}
ROWS = {"event": "planned", "rows": 4, "parts": 1}


class Jobs:
    """Ids in their order; each ends with the next of `ends`."""

    def __init__(self, *ends: Followed) -> None:
        self.ids: list[str] = []
        self._ends = ends

    def start(self) -> str:
        self.ids.append(f"job-{len(self.ids) + 1}")
        return self.ids[-1]

    def watch(self, job: str) -> Followed:
        assert job == self.ids[-1]
        return self._ends[len(self.ids) - 1]


def test_a_job_that_ends_well_is_submitted_once() -> None:
    jobs = Jobs(Followed(WELL, {"r": {"n": 1}}, {}))
    assert to_end(jobs.start, ["r"], jobs.watch) == {"r": {"n": 1}}
    assert jobs.ids == ["job-1"]


def test_a_job_that_never_began_is_submitted_once_more() -> None:
    jobs = Jobs(Followed(NEVER, {}, {}), Followed(WELL, {"r": {"n": 2}}, {}))
    assert to_end(jobs.start, ["r"], jobs.watch) == {"r": {"n": 2}}
    assert jobs.ids == ["job-1", "job-2"]


def test_and_no_more_than_once(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs(Followed(NEVER, {}, {}), Followed(NEVER, {}, {}))
    with pytest.raises(typer.Exit) as ended:
        to_end(jobs.start, ["r"], jobs.watch)
    assert ended.value.exit_code == 5
    assert jobs.ids == ["job-1", "job-2"]
    assert "the job ended FAILED: runtime_env setup failed" in capsys.readouterr().err


def test_a_job_that_failed_ends_with_its_code_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = JobOutcome("FAILED", 7, "Job entrypoint command failed with exit code 7")
    jobs = Jobs(Followed(outcome, {"one": {}}, {"error": "the tables are away"}))
    with pytest.raises(typer.Exit) as ended:
        to_end(jobs.start, ["one", "two"], jobs.watch)
    assert ended.value.exit_code == 7
    assert jobs.ids == ["job-1"]
    assert "the job ended FAILED: the tables are away" in capsys.readouterr().err


def test_a_report_that_did_not_come_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs(Followed(WELL, {"one": {}}, {}))
    assert to_end(jobs.start, ["one", "two"], jobs.watch) == {"one": {}}
    said = capsys.readouterr().err
    assert "run two has succeeded, but its report did not come: ray job logs job-1" in said
    assert "run one" not in said


@pytest.mark.parametrize(
    ("watch", "lines"),
    [(lambda job: follow(job, True), PROGRESS), (lambda job: follow_several(job, 3), PARTS)],
)
def test_reports_and_failures_are_taken_from_the_lines_of_the_job(
    monkeypatch: pytest.MonkeyPatch, watch: Callable[[str], Followed], lines: dict[str, Any]
) -> None:
    ends = [{"event": "report", "run_id": name, "n": n} for n, name in enumerate("ab")]
    failed = {"event": "run_failed", "error": "words"}
    first = ROWS if lines is PARTS else {"event": "planned", "requested": 2}

    async def tail(
        job: str, on_line: Callable[[str], None], enough: Callable[[], bool]
    ) -> JobOutcome:
        assert job == "job-1"
        for event in (first, lines, *ends, failed):
            on_line(json.dumps(event))
        on_line("no event")
        return WELL

    for module in (cli.follow, cli.follow_jobs):
        monkeypatch.setattr(module, "tail", tail)
    done = watch("job-1")
    assert done == Followed(WELL, {"a": ends[0], "b": ends[1]}, failed)


@pytest.mark.parametrize(
    ("watch", "wanted"),
    [(lambda job: follow(job, True), 1), (lambda job: follow_several(job, 2), 2)],
)
def test_nobody_waits_for_a_job_to_take_itself_down_once_its_reports_are_there(
    monkeypatch: pytest.MonkeyPatch, watch: Callable[[str], Followed], wanted: int
) -> None:
    class Client:
        asked = 0

        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            yield "{}\n"
            for run in range(9):
                Client.asked += 1
                yield json.dumps({"event": "report", "run_id": f"r{run}"}) + "\n"

        def get_job_info(self, job: str) -> None:
            raise AssertionError("how it ended is not asked")

    monkeypatch.setattr(batch.submit, "_client", Client)
    done = watch("job-1")
    assert (done.outcome, len(done.reports), Client.asked) == (WELL, wanted, wanted)
