"""Test the start and the end of jobs, without a cluster."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
import structlog

import batch.jobs.entry
import batch.runs.run
from batch.jobs.entry import begin, carry_out, run_job
from batch.runs.spec import ClassifySpec, PassSpec, RunSpec
from model_store.errors import ModelNotFound, NothingWorked
from serve.settings import Settings

MODULES = ("batch.reprocess", "batch.classify.__main__", "batch.filters.__main__")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Any, list[dict[str, Any]]]]:
    """Return a function that runs a job: (exit code, lines)."""

    def run_one(main: Callable[..., None], *words: str) -> tuple[Any, list[dict[str, Any]]]:
        monkeypatch.setattr(sys, "argv", ["job", *words])
        monkeypatch.setattr(batch.jobs.entry, "final_exit", contextlib.nullcontext)
        with pytest.raises(SystemExit) as ended:
            run_job(main, "resight.test")
        return ended.value.code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run_one


@pytest.mark.parametrize(
    ("error", "code", "kind", "words"),
    [
        (NothingWorked("in its words"), 4, "NothingWorked", "in its words"),
        (duckdb.OutOfMemoryException("Out of Memory Error: 1 GiB used\nstack"), 2, "BadRequest", "set TMPDIR to a"),
        (OSError(errno.ENOSPC, "No space left on device"), 7, "StorageFull", "No space left on device"),
    ],
)
def test_a_known_error_is_the_last_line_and_its_exit_code(
    run: Callable[..., Any], error: Exception, code: int, kind: str, words: str
) -> None:
    def main() -> None:
        structlog.get_logger().info("planned")
        raise error

    ended, lines = run(main)
    assert ended == code
    assert [line["event"] for line in lines] == ["planned", "run_failed"]
    assert lines[-1]["kind"] == kind
    assert words in lines[-1]["error"]
    assert lines[-1]["level"] == "error"


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[PassSpec]:
    """Specs of the runs of a job, which detect with deer@2; the classifier `sour` fails on all crops."""
    specs: list[PassSpec] = []

    def execute(spec: PassSpec, *_: Any) -> Any:
        specs.append(spec)
        if spec.model == "sour":
            raise NothingWorked("all crops failed")
        plan = SimpleNamespace(model=SimpleNamespace(id="deer@2"))
        return SimpleNamespace(plan=plan, as_dict=lambda: {"run_id": spec.run_id})

    def following(spec: RunSpec, *_: Any) -> ClassifySpec:
        if spec.then == "unknown":
            raise ModelNotFound("unknown model")
        return spec.classify_spec("deer@1")

    monkeypatch.setattr(batch.runs.run, "execute", execute)
    monkeypatch.setattr(batch.jobs.entry, "following", following)
    monkeypatch.setattr(batch.jobs.entry, "begin", lambda *_: None)
    return specs


@pytest.mark.parametrize(
    ("then", "code", "runs", "events"),
    [
        ("species", 0, ["r", "r-then"], ["report", "report"]),
        ("sour", 4, ["r", "r-then"], ["report", "run_failed"]),
        ("unknown", 6, [], ["run_failed"]),
    ],
)
def test_a_job_of_two_runs_has_the_reports_and_the_worse_code_of_both(
    run: Callable[..., Any], executed: list[PassSpec], then: str, code: int, runs: list[str], events: list[str]
) -> None:
    def main() -> None:
        carry_out(RunSpec(run_id="r", model="deer", then=then), dry_run=False, here=True)
        sys.exit(0)

    ended, lines = run(main)
    assert ended == code
    assert [spec.run_id for spec in executed] == runs
    assert [line["event"] for line in lines] == events
    assert not runs or executed[1].view == "deer@2"  # type: ignore[attr-defined]  # that the first run has pinned


def test_a_bug_goes_on_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["job"])
    with pytest.raises(ZeroDivisionError):
        run_job(main, "resight.test")


def test_a_job_joins_first_then_takes_sigterm_and_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets its own handler while it connects, which must not stay."""
    done: list[str] = []

    def connect(_: Settings) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        done.append("connected")

    monkeypatch.setattr(batch.jobs.entry, "_connect", connect)
    monkeypatch.setattr(batch.jobs.entry, "lower_process_priority", lambda: done.append("gives way"))
    before = signal.getsignal(signal.SIGTERM)
    try:
        begin(Settings(), here=False)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert done == ["connected", "gives way"]


def test_no_job_imports_ray_before_it_begins() -> None:
    code = f"import sys, {', '.join(MODULES)}; sys.exit('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
