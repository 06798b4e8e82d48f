"""A job that was submitted, to its end: its lines, reports, second try, exit code; Ctrl-C. No cluster is started."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import batch.jobs.cluster_jobs
import cli.follow
from archive.delta.tables import Tables
from batch.jobs.cluster_jobs import ClusterJobs
from batch.jobs.control import JobOutcome
from batch.jobs.entry import SIGHUP_EXIT, SIGTERM_EXIT
from batch.runs.spec import RunSpec
from cli.follow import Followed, follow, nothing_to_do, run_to_end, to_end
from cli.output import Format
from model_store.errors import ClusterError
from model_store.store import ModelStore
from serve.settings import Settings
from tests.support.jobs import FakeJobs

WELL = JobOutcome("SUCCEEDED", 0, "")
NEVER = JobOutcome("FAILED", None, "runtime_env setup failed: the package is gone")
PROGRESS = {"event": "progress", "requested": 2, "ok": 1, "images_per_s": 3.0}
PARTS = {"event": "filter_progress", "parts": 1}
ROWS = {"event": "planned", "rows": 4, "parts": 1}
REPORT = json.dumps({"event": "report", "run_id": "r"})
CONTINUES = "run r continues; follow it with: resight runs attach r; stop it with: resight runs cancel r"


class Tries:
    """Ids in their order; each ends with the next of `ends`."""

    def __init__(self, patch: pytest.MonkeyPatch, *ends: Followed) -> None:
        self.ids: list[str] = []
        self._ends = ends
        patch.setattr(cli.follow, "follow", self.follow)

    def start(self) -> str:
        self.ids.append(f"job-{len(self.ids) + 1}")
        return self.ids[-1]

    def follow(self, _: object, job: str, *more: object) -> Followed:
        assert job == self.ids[-1]
        return self._ends[len(self.ids) - 1]


def test_a_job_that_ends_well_is_submitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = Tries(monkeypatch, Followed(WELL, {"r": {"n": 1}}, {}))
    assert to_end(FakeJobs(), tries.start, ["r"]) == {"r": {"n": 1}}
    assert tries.ids == ["job-1"]


def test_a_job_that_never_began_is_submitted_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = Tries(monkeypatch, Followed(NEVER, {}, {}), Followed(WELL, {"r": {"n": 2}}, {}))
    assert to_end(FakeJobs(), tries.start, ["r"]) == {"r": {"n": 2}}
    assert tries.ids == ["job-1", "job-2"]


def test_and_no_more_than_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tries = Tries(monkeypatch, Followed(NEVER, {}, {}), Followed(NEVER, {}, {}))
    with pytest.raises(typer.Exit) as ended:
        to_end(FakeJobs(), tries.start, ["r"])
    assert ended.value.exit_code == 5
    assert tries.ids == ["job-1", "job-2"]
    assert "the job ended with status FAILED: runtime_env setup failed" in capsys.readouterr().err


def test_a_job_that_failed_ends_with_its_code_and_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = JobOutcome("FAILED", 7, "Job entrypoint command failed with exit code 7")
    tries = Tries(
        monkeypatch, Followed(outcome, {"one": {"accounting": "requested 1 = ok 1"}}, {"error": "the tables are away"})
    )
    with pytest.raises(typer.Exit) as ended:
        to_end(FakeJobs(), tries.start, ["one", "two"])
    assert ended.value.exit_code == 7
    assert tries.ids == ["job-1"]
    err = capsys.readouterr().err
    assert "the job ended with status FAILED: the tables are away" in err
    assert "run one: requested 1 = ok 1" in err


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (139, "SIGSEGV")])
def test_a_killed_job_ends_with_code_5_and_how_to_continue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, name: str
) -> None:
    tries = Tries(monkeypatch, Followed(JobOutcome("FAILED", code, "dump " * 1000), {}, {}))
    with pytest.raises(typer.Exit) as ended:
        to_end(FakeJobs(), tries.start, ["r"])
    assert ended.value.exit_code == 5
    said = capsys.readouterr().err
    assert f"the job of run r was killed by {name}; its log: resight logs --run r" in said
    assert "to continue, run the same command again" in said
    assert "dump" not in said


@pytest.mark.parametrize("code", [SIGHUP_EXIT, SIGTERM_EXIT])
def test_a_stopped_job_ends_with_its_own_code(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    tries = Tries(monkeypatch, Followed(JobOutcome("STOPPED", code, "stopped"), {}, {}))
    with pytest.raises(typer.Exit) as ended:
        to_end(FakeJobs(), tries.start, ["r"])
    assert ended.value.exit_code == code


def test_a_report_that_did_not_come_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = Tries(monkeypatch, Followed(WELL, {"one": {}}, {}))
    assert to_end(FakeJobs(), tries.start, ["one", "two"]) == {"one": {}}
    said = capsys.readouterr().err
    assert "run two succeeded, but its report is missing; see: resight logs --run two" in said
    assert "run one" not in said


@pytest.mark.parametrize("events", [[{"event": "planned", "requested": 2}, PROGRESS], [ROWS, PARTS]])
def test_reports_and_failures_are_taken_from_the_lines_of_the_job(events: list[dict[str, Any]]) -> None:
    ends = [{"event": "report", "run_id": name, "n": n} for n, name in enumerate("ab")]
    failed = {"event": "run_failed", "error": "words"}

    lines = [json.dumps(event) for event in (*events, *ends, failed)]
    done = follow(FakeJobs(*lines, "no event"), "job-1", "ab", quiet=True)
    assert done == Followed(WELL, {"a": ends[0], "b": ends[1]}, failed)


def test_the_time_that_is_left_is_that_of_the_job() -> None:
    assert cli.follow._words(PROGRESS | {"eta_s": 74}) == "ok 1 · 3 img/s · 0:01:14 left"
    assert cli.follow._words(PROGRESS | {"eta_s": None}) == "ok 1 · 3 img/s"


def test_nobody_waits_for_a_job_to_take_itself_down_once_its_reports_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    run_ids = ["r0", "r1"]

    class Client:
        asked = 0

        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            yield "{}\n"
            for run in range(9):
                Client.asked += 1
                yield json.dumps({"event": "report", "run_id": f"r{run}"}) + "\n"

        def get_job_info(self, job: str) -> None:
            raise AssertionError("how it ended is not asked")

    monkeypatch.setattr(batch.jobs.cluster_jobs, "_client", Client)
    monkeypatch.setattr(batch.jobs.cluster_jobs, "read_state", lambda _: None)
    done = follow(ClusterJobs(Settings()), "job-1", run_ids, quiet=True)
    assert (done.outcome, len(done.reports), Client.asked) == (WELL, len(run_ids), len(run_ids))


def test_ctrl_c_does_not_wait_for_a_cluster_that_is_slow_to_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The log says nothing, and how the job is has just been asked."""
    (tmp_path / "job-driver-job-1.log").touch()
    asked: list[str] = []

    class Client:
        def get_job_info(self, job: str) -> None:
            asked.append(job)
            time.sleep(2)
            raise OSError

    async def interrupted(_: float) -> None:
        if asked:
            raise KeyboardInterrupt

    monkeypatch.setattr(batch.jobs.cluster_jobs, "_client", Client)
    monkeypatch.setattr(batch.jobs.cluster_jobs, "read_state", lambda _: Here(str(tmp_path)))
    monkeypatch.setattr("batch.jobs.job_log.ASK_S", 0.001)
    monkeypatch.setattr("asyncio.sleep", interrupted)
    began_s = time.monotonic()
    with pytest.raises(typer.Exit) as ended:
        follow(ClusterJobs(Settings()), "job-1", ["r"], quiet=True)
    assert ended.value.exit_code == 130
    assert time.monotonic() - began_s < 1
    assert CONTINUES in capsys.readouterr().err


class Here:
    endpoint = "http://127.0.0.1:1"

    def __init__(self, logs: str) -> None:
        self.logs = logs


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"r"}, f"^{CONTINUES}$"),
        (set[str](), "^interrupted: nothing was started$"),
        (ClusterError("away"), f"^interrupted while submitting the job; if the cluster has it, {CONTINUES}$"),
    ],
)
def test_ctrl_c_during_the_submission_says_whether_the_cluster_has_the_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: object, words: str
) -> None:
    def running(_: object) -> object:
        if isinstance(known, Exception):
            raise known
        return known

    def start() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(ClusterJobs, "running", running)
    with pytest.raises(typer.Exit) as ended:
        to_end(ClusterJobs(Settings()), start, ["r"])
    assert ended.value.exit_code == 130
    assert re.match(words, capsys.readouterr().err)


def test_a_cluster_that_does_not_answer_delays_ctrl_c_by_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.follow, "ASK_S", 0.01)
    jobs = ClusterJobs(Settings())
    monkeypatch.setattr(jobs, "running", lambda: time.sleep(2) or set())
    began_s = time.monotonic()
    with (
        pytest.raises(typer.Exit),
        cli.follow.interruptible(lambda: cli.follow._interrupted_submission(jobs, ["r", "s"])),
    ):
        raise KeyboardInterrupt
    assert time.monotonic() - began_s < 1
    assert "runs r, s continue; follow them with: resight runs attach r" in capsys.readouterr().err


@pytest.mark.parametrize("lines", [[REPORT], [json.dumps(PROGRESS)]])
def test_ctrl_c_after_the_last_row_tells_how_to_see_the_report(
    lines: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tail(jobs: FakeJobs, job: str, on_line: Callable[[str], None], enough: object) -> JobOutcome:
        for line in jobs.lines:
            on_line(line)
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeJobs, "tail", tail)
    with pytest.raises(typer.Exit) as ended:
        follow(FakeJobs(*lines), "job-1", ["r"], quiet=True)
    assert ended.value.exit_code == 130
    words = "run r has ended; its report: resight runs attach r" if lines == [REPORT] else CONTINUES
    assert capsys.readouterr().err == f"{words}\n"


def test_ctrl_c_while_the_report_is_prepared_tells_how_to_see_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    spec, settings = RunSpec(run_id="r", model="deer"), Settings(home=str(tmp_path))  # type: ignore[call-arg]
    monkeypatch.setattr(cli.follow, "report_of_nothing", lambda *_: None)
    monkeypatch.setattr(cli.follow, "jobs_of", lambda *_: FakeJobs(REPORT))
    monkeypatch.setattr(cli.follow, "require_startable", lambda *_: None)
    monkeypatch.setattr(cli.follow, "facts_of", interrupted)
    with pytest.raises(typer.Exit) as ended:
        run_to_end(spec, settings, Tables(str(tmp_path)), ModelStore(str(tmp_path)), True, Format.json)
    assert ended.value.exit_code == 130
    assert "run r has ended; its report: resight runs attach r" in capsys.readouterr().err


def test_a_run_with_nothing_to_do_is_one_line() -> None:
    facts = {"run_id": None, "accounting": "requested 3", "seconds": 0.0, "published": "v 1"}
    assert nothing_to_do(facts) == {"nothing to do": "requested 3", "published": "v 1"}
