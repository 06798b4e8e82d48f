"""Test that a run records that it is alive while it plans, loads a replica or compacts."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

import batch.pipeline.drain
import batch.runs.heartbeat
import batch.runs.run
from archive.delta.tables import Tables
from batch.runs.accounting import Counts
from batch.runs.heartbeat import heartbeat
from batch.runs.record import RunLog
from batch.runs.spec import RunSpec
from model_store.errors import BadRequest
from model_store.store import ModelStore, ModelVersion
from tests.batch.pipeline.test_patience import MODELS, Pipeline
from tests.batch.pipeline.test_patience import tables as tables
from tests.fixtures_local import rows_of
from tests.support.hosts import HOST

WAIT_S = 60
SPEC = RunSpec(run_id="r", model="motion@1", commit_s=1e-6)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.runs.heartbeat, "HEARTBEAT_S", 0.01)


class Beats:
    """Count calls, of which the first may fail; `wait` returns after two more."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count, self._error = 0, error
        self._changed = threading.Condition()

    def __call__(self, *_: object) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()
        if self._error and self.count == 1:
            raise self._error

    def wait(self) -> None:
        with self._changed:
            enough = self.count + 2
            assert self._changed.wait_for(lambda: self.count >= enough, WAIT_S)


def test_it_beats_until_the_block_ends_and_not_after() -> None:
    beats = Beats()
    with heartbeat(beats):
        beats.wait()
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


@pytest.mark.parametrize("error", [TimeoutError()])
def test_a_beat_that_fails_is_not_the_last_one(error: Exception) -> None:
    beats = Beats(error)
    with heartbeat(beats):
        beats.wait()


def test_an_error_of_the_block_ends_it() -> None:
    beats = Beats()
    with contextlib.suppress(ZeroDivisionError), heartbeat(beats):
        raise ZeroDivisionError
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def wait_for_beats(tables: Tables) -> None:
    """Wait until the record of the run has two more events."""
    before, clock = len(rows_of(tables, "runs")), threading.Event()
    for _ in range(WAIT_S * 20):
        if len(rows_of(tables, "runs")) >= before + 2:
            return
        clock.wait(0.05)
    raise AssertionError("no heartbeat")


@pytest.mark.parametrize("phase", ["planning", "loading", "compaction", "reading back"])
def test_a_run_beats_in_every_phase(tables: Tables, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    def busy(*_: object, **__: object) -> Any:
        wait_for_beats(tables)
        raise BadRequest(f"{phase} took long")

    @contextlib.contextmanager
    def loading(*_: object) -> Any:
        busy()
        yield

    pipeline = Pipeline("oooooooo")
    pipeline.left.set()
    monkeypatch.setattr(HOST, "rows", pipeline)
    monkeypatch.setattr(batch.pipeline.drain, "COMPACT_EVERY", 0)
    owner, name, slow = {
        "planning": (batch.runs.run, "plan_pass", busy),
        "loading": (HOST, "leased", loading),
        "compaction": (batch.pipeline.drain, "compact", busy),
        "reading back": (batch.runs.run, "read_back", busy),
    }[phase]
    monkeypatch.setattr(owner, name, slow)
    with pytest.raises(BadRequest, match=phase):
        batch.runs.run.execute(SPEC, tables, ModelStore(str(MODELS)), HOST)
    states = [r["state"] for r in sorted(rows_of(tables, "runs"), key=lambda row: row["event"])]
    assert len(states) >= 4
    assert states == ["running"] * (len(states) - 1) + ["failed"]


def test_two_threads_of_a_run_write_its_record(tmp_path: Path, motion: ModelVersion) -> None:
    """Each event is there once, numbered without gaps."""
    tables = Tables(str(tmp_path))
    log = RunLog(tables, SPEC, motion.info)
    both = [threading.Thread(target=lambda: [log.write("running", Counts()) for _ in range(4)]) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(row["event"] for row in rows_of(tables, "runs")) == list(range(8))
