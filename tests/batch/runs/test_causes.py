"""Test errors of a run, through the wrappings of Ray, and what is recorded of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import RayTaskError, UserCodeException

from archive.delta.tables import Tables
from batch.runs.accounting import Counts
from batch.runs.record import RunLog, ours, recorded
from batch.runs.spec import RunSpec
from model_store.errors import LineageMismatch, StorageUnreachable
from model_store.store import ModelVersion
from tests.fixtures_local import rows_of

COUNTS = Counts(requested=5, ok=2)


def wrapped(kind: str, cause: Exception) -> BaseException:
    if kind == "bare":
        return cause
    if kind == "task":
        return RayTaskError("f", "trace", cause).as_instanceof_cause()
    user = UserCodeException()
    user.__cause__ = cause
    return RayTaskError("f", "trace", user) if kind == "data in a task" else user


@pytest.fixture
def run_log(tmp_path: Path, motion: ModelVersion) -> RunLog:
    spec = RunSpec(run_id="r", model="motion")
    return RunLog(Tables(str(tmp_path / "tables")), spec, motion.info)


def last(tmp_path: Path) -> tuple[str, str]:
    row = max(rows_of(Tables(str(tmp_path / "tables")), "runs"), key=lambda row: row["event"])
    assert row["counts"] | {"requested": 5, "ok": 2} == row["counts"]
    return row["state"], row["message"]


@pytest.mark.parametrize("kind", ["bare", "task", "data", "data in a task"])
@pytest.mark.parametrize("error", [LineageMismatch("other model")])
def test_a_deliberate_error_is_found_in_its_wrappings(kind: str, error: Exception) -> None:
    assert ours(wrapped(kind, error)) is error
    assert ours(wrapped(kind, ValueError("a bug"))) is None


@pytest.mark.parametrize("kind", ["data in a task"])
def test_a_deliberate_error_is_raised_and_recorded_in_its_own_words(run_log: RunLog, tmp_path: Path, kind: str) -> None:
    error = LineageMismatch("other model")
    assert recorded(run_log, COUNTS, wrapped(kind, error)) is error
    assert last(tmp_path) == ("failed", "other model")


def test_a_bug_is_recorded_with_its_kind_and_raised_as_it_is(run_log: RunLog, tmp_path: Path) -> None:
    bug = ZeroDivisionError("of 3")
    assert recorded(run_log, COUNTS, bug) is bug
    assert last(tmp_path) == ("failed", "ZeroDivisionError: of 3")


@pytest.mark.parametrize(
    ("stop", "words"),
    [(SystemExit(143), "stopped by 'resight runs cancel' or SIGTERM"), (KeyboardInterrupt(), "stopped by Ctrl-C")],
)
def test_a_run_that_was_stopped_is_cancelled(run_log: RunLog, tmp_path: Path, stop: BaseException, words: str) -> None:
    assert recorded(run_log, COUNTS, stop) is stop
    assert last(tmp_path) == ("cancelled", words)


@pytest.mark.parametrize("error", [SystemExit(143), StorageUnreachable("no acknowledgement")])
def test_a_stop_after_the_seal_leaves_the_run_sealed(run_log: RunLog, tmp_path: Path, error: BaseException) -> None:
    run_log.write("sealed", COUNTS, "3 ok")
    assert recorded(run_log, COUNTS, error) is error
    assert last(tmp_path) == ("sealed", "3 ok")
    run_log.begin(COUNTS)  # the same run again
    recorded(run_log, COUNTS, SystemExit(143))
    assert last(tmp_path)[0] == "cancelled"


def test_a_record_that_cannot_be_written_hides_no_error(run_log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StorageUnreachable("the tables are away")

    monkeypatch.setattr(RunLog, "write", away)
    error = LineageMismatch("other model")
    assert recorded(run_log, COUNTS, error) is error
