"""Test the start and the end of jobs, without a cluster."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import structlog

import batch.jobs.entry
from batch.jobs.entry import begin, run_job
from model_store.errors import NothingWorked, ResightError
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


@pytest.mark.parametrize(("kind", "code"), [(NothingWorked, 4)])
def test_an_error_of_ours_is_the_last_line_and_its_exit_code(
    run: Callable[..., Any], kind: type[ResightError], code: int
) -> None:
    def main() -> None:
        structlog.get_logger().info("planned")
        raise kind("in its words")

    ended, lines = run(main)
    assert ended == code
    assert [line["event"] for line in lines] == ["planned", "run_failed"]
    assert (lines[-1]["kind"], lines[-1]["error"]) == (kind.__name__, "in its words")
    assert lines[-1]["level"] == "error"


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
