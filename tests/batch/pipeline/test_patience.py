"""Test that a run gives up if too many images fail or no result arrives, and keeps its results."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import batch.pipeline.drain
import batch.runs.run
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from batch.pipeline.drain import RunWatchdog
from batch.planning.plan import Plan
from batch.runs.accounting import Counts, PassTally
from batch.runs.run import execute
from batch.runs.spec import RunSpec
from batch.schedule.policy import Stop
from model_store.errors import ResightError, RunStalled, TooManyFailed
from model_store.store import ModelStore
from tests.batch.runs.test_accounting import OUTCOMES
from tests.fixtures_local import MODELS, result_rows, rows_of
from tests.support.hosts import HOST

WAIT_S = 30


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("ok", "empty", "failed", "gives_up"),
    [
        (0, 0, 99, False),  # not before 100 images
        (75, 0, 25, False),  # the limit itself is allowed
        (74, 0, 26, True),
        (0, 75, 25, False),  # an empty image has not failed
    ],
)
def test_too_large_a_share_of_failed_images(ok: int, empty: int, failed: int, gives_up: bool) -> None:
    watchdog = RunWatchdog(Stop(failed_frac=0.25, failed_after=100), Clock())
    counts = Counts(requested=10_001, ok=ok, empty=empty, failed=failed)
    if gives_up:
        with pytest.raises(TooManyFailed, match=f"{failed} of the first {counts.inferred} images"):
            watchdog.require(counts, arrived=True)
    else:
        watchdog.require(counts, arrived=True)


def test_images_that_were_not_tried_do_not_count() -> None:
    watchdog = RunWatchdog(Stop(failed_frac=0.5, failed_after=10), Clock())
    with pytest.raises(TooManyFailed, match="over the limit of 50%.*--stop-failed-frac"):
        watchdog.require(Counts(requested=100_000, reused=99_000, ok=4, failed=6), arrived=True)


@pytest.mark.parametrize(("waited_s", "gives_up"), [(60, False), (60.5, True)])
def test_nothing_has_come_back_for_too_long(waited_s: float, gives_up: bool) -> None:
    clock = Clock()
    watchdog = RunWatchdog(Stop(stall_s=60), clock)
    clock.now_s += 40
    watchdog.require(Counts(9, ok=3), arrived=True)
    clock.now_s += waited_s
    if gives_up:
        with pytest.raises(RunStalled, match="no result for 60 s, after 3 images.*--stall-s"):
            watchdog.require(Counts(9, ok=3), arrived=False)
    else:
        watchdog.require(Counts(9, ok=3), arrived=False)


class Pipeline:
    """A fake pipeline: chunks of one image with the given outcomes, and then nothing for ever."""

    def __init__(self, statuses: str) -> None:
        self._statuses = statuses
        self.left = threading.Event()

    def __call__(self, spec: RunSpec, plan: Plan) -> Iterator[pa.Table]:
        outcomes = {"o": OUTCOMES["ok"], "e": {}, "f": OUTCOMES["failed"]}
        (todo,) = plan.windows(1000)
        key = plan.model.info.inference_key
        for row, letter in zip(todo.to_pylist(), self._statuses, strict=False):
            sha = [row["media_sha256"]]
            rows = result_rows(sha, key, run_id=spec.run_id, **outcomes[letter])
            yield (
                rows.append_column("replaces", pa.array([row["replaces"]]))
                .append_column("waited_ms", pa.array([1.0], pa.float32()))
                .append_column("node", pa.array(["n"]))
            )
        self.left.wait(WAIT_S)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "an image").touch()
    tables = Tables(str(tmp_path / "tables"))
    media = [
        {"media_sha256": n, "source_root": str(tmp_path / "archive"), "path": n, "size_bytes": 1} for n in "abcdefgh"
    ]
    rows = pa.Table.from_pylist(media, schema=MEDIA)
    tables.append("media", rows, "test", lambda _, wanted: wanted)
    return tables


@pytest.mark.parametrize(
    ("statuses", "stop", "error"),
    [("oeo", Stop(stall_s=1e-6), RunStalled), ("offff", Stop(failed_frac=0.5, failed_after=3), TooManyFailed)],
)
def test_a_run_that_gives_up_keeps_what_it_has_done_and_says_why(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, statuses: str, stop: Stop, error: type[ResightError]
) -> None:
    pipeline = Pipeline(statuses)
    monkeypatch.setattr(HOST, "rows", pipeline)
    monkeypatch.setattr(batch.pipeline.drain, "TICK_S", 0.01)
    spec = RunSpec(run_id="r", model="motion@1", commit_s=3600, stop=stop)
    try:
        with pytest.raises(error) as raised:
            execute(spec, tables, ModelStore(str(MODELS)), HOST)
    finally:
        pipeline.left.set()
    events = sorted(rows_of(tables, "runs"), key=lambda row: row["event"])
    assert [row["state"] for row in events] == ["running", "failed"]
    assert events[-1]["message"] == str(raised.value)
    counts = events[-1]["counts"]
    arrived = counts["ok"] + counts["empty"] + counts["failed"]
    assert len(rows_of(tables, "results")) == arrived
    assert counts["requested"] == 8
    if error is TooManyFailed:
        assert (counts["ok"], counts["failed"]) == (1, 2)


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_run_that_is_stopped_in_a_callback_of_duckdb_is_cancelled(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, signalled: signal.Signals, ignored: bool
) -> None:
    ends = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: lambda *_: sys.exit(143)}
    former = signal.signal(signalled, ends[signalled])
    pipeline = Pipeline("ooooeeff")
    add = PassTally.add

    def stop() -> int:
        signal.raise_signal(signalled)
        return 0

    def stopped(tally: PassTally, rows: pa.Table) -> Counts:
        with duckdb.connect() as sql, contextlib.suppress(duckdb.Error if ignored else ()):
            sql.create_function("stop", stop, [], "int", side_effects=True)  # type: ignore[arg-type]
            sql.execute("select stop()").fetchall()
        return add(tally, rows)

    monkeypatch.setattr(HOST, "rows", pipeline)
    monkeypatch.setattr(PassTally, "add", stopped)
    spec = RunSpec(run_id="r", model="motion@1", commit_s=3600)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            execute(spec, tables, ModelStore(str(MODELS)), HOST)
    finally:
        pipeline.left.set()
        signal.signal(signalled, former)
    events = sorted(rows_of(tables, "runs"), key=lambda row: row["event"])
    assert [row["state"] for row in events] == ["running", "cancelled"]
    assert len(rows_of(tables, "results")) == 1
