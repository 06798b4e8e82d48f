"""Execute a filter run, from its rows to closed accounts.

FilterSpec -> rows of its scope, in parts -> judged -> rows of `assertions`, exactly once -> recount from the table

To resume a stopped run, run it again: stored assertions are kept, and only missing ones are added.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import structlog

from archive.annotations.layers import Layer, append_assertions, keep_layer, newest, read_layers
from archive.delta.scratch_db import LARGE_MIB, scratch
from archive.delta.snapshot import dataset
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS
from batch.filters.contract import ClassFilterConfig
from batch.filters.evaluate import Evaluated, FilterCounts, Question, evaluate
from batch.filters.load import Loaded, load
from batch.filters.prepare import classes_of
from batch.filters.registry import config_of, filter_of
from batch.filters.spec import FilterSpec
from batch.runs.accounting import Counts
from batch.runs.heartbeat import heartbeat
from batch.runs.record import RunLog, recorded
from model_store.errors import AccountingOpen, BadRequest, StorageError
from model_store.libraries import resight_version
from model_store.process_exit import lasting_stops

Judge = Callable[[Iterable[pa.Table], Question], Iterator[Evaluated]]
COMMIT_ROWS, COMMIT_S = 200_000, 10.0
log = structlog.get_logger("resight.filter")


@dataclass(frozen=True, slots=True)
class FilterReport:
    """Result of a filter run. `standing` counts the layer's current assertions in its scope; None in a dry run."""

    run_id: str
    layer_id: str
    kind: str
    images: int
    tally: FilterCounts
    standing: int | None
    seconds: float

    def metrics(self) -> dict[str, Any]:
        identity = {"layer_id": self.layer_id, "filter": self.kind, "images": self.images}
        return identity | asdict(self.tally) | {"standing": self.standing}

    def line(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in asdict(self.tally).items())
        return f"{self.kind} {self.layer_id[:12]}: {counts}"


@dataclass
class _Progress:
    """State of a run that its heartbeat, and the end of a run that fails, record. `tally` is of the committed rows."""

    run_log: RunLog
    counts: Counts = field(default_factory=Counts)
    tally: FilterCounts | None = None
    stages: dict[str, float] = field(default_factory=dict)

    def record(self) -> None:
        self.run_log.write("running", self.counts, metrics=self.metrics())

    def metrics(self) -> dict[str, int] | None:
        return asdict(self.tally) if self.tally else None

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to `stages`, also if it fails."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.stages[stage] = round(self.stages.get(stage, 0) + time.monotonic() - began_s, 3)


def dry_run(spec: FilterSpec, tables: Tables, judge: Judge) -> FilterReport:
    """Return the report of a run without writing anything. Raises BadRequest, StorageUnreachable."""
    started = time.monotonic()
    with scratch("filter", LARGE_MIB) as sql:
        loaded, question = _loaded(sql, spec, tables)
        tally = sum((evaluated.tally for evaluated in judge(loaded.parts(), question)), FilterCounts())
    return _report(spec, loaded, tally, None, started)


def here(parts: Iterable[pa.Table], question: Question) -> Iterator[Evaluated]:
    """Evaluate the parts one by one in this process."""
    return (evaluate(part, question) for part in parts)


def execute_all(specs: Sequence[FilterSpec], tables: Tables, judge: Judge) -> Iterator[FilterReport]:
    """Execute runs in order. Raises as `execute`; the remaining runs are then recorded as cancelled."""
    for position, spec in enumerate(specs):
        try:
            report = execute(spec, tables, judge)
        except BaseException:
            message = f"not started: run {spec.run_id} before it did not succeed"
            with contextlib.suppress(StorageError):
                for later in specs[position + 1 :]:
                    RunLog(tables, later, later.model, "filter").write("cancelled", Counts(), message)
            raise
        yield report


def execute(spec: FilterSpec, tables: Tables, judge: Judge) -> FilterReport:
    """Execute one run. Raises ResightError if it fails, and records the error in `runs`."""
    started = time.monotonic()
    layer = spec.layer()
    run_log = RunLog(tables, spec, spec.model, "filter")
    progress = _Progress(run_log)
    try:
        with lasting_stops():
            run_log.begin(progress.counts)
            with heartbeat(progress.record), scratch("filter", LARGE_MIB) as sql:
                keep_layer(tables, layer, resight_version())
                with progress.timed("load_s"):
                    loaded, question = _loaded(sql, spec, tables)
                progress.counts = Counts(requested=loaded.images)
                progress.record()
                parts = len(loaded.starts)
                log.info("planned", run_id=spec.run_id, images=loaded.images, rows=loaded.rows, parts=parts)
                tally = _judge_and_commit(spec, tables, loaded, question, judge, progress)
                with progress.timed("recount_s"):
                    standing = _recount(sql, tables, layer, spec.view.inference_key)
            if standing != tally.flagged:
                raise AccountingOpen(
                    f"accounting mismatch in run {spec.run_id}: the filter produced {tally.flagged} assertions, layer "
                    f"{layer.layer_id[:12]} holds {standing}; another run of the layer may be active: run it again"
                )
            report = _report(spec, loaded, tally, standing, started)
            counts = Counts(requested=loaded.images, reused=loaded.images)
            run_log.write("sealed", counts, report.line(), progress.stages, report.metrics())
    except BaseException as error:
        cause = recorded(run_log, progress.counts, error, progress.stages, progress.metrics())
        raise cause from cause.__cause__
    return report


def _loaded(sql: duckdb.DuckDBPyConnection, spec: FilterSpec, tables: Tables) -> tuple[Loaded, Question]:
    filter_, config = filter_of(spec.kind), config_of(spec.kind, spec.config)
    layers = read_layers(tables)
    missing = [name for name in (*spec.input_layers, *spec.view.layers) if name not in layers]
    if missing:
        raise BadRequest(f"layer {missing[0]} is not in {tables.url}/layers")
    logits_of = config.classifier if isinstance(config, ClassFilterConfig) and config.needs == "logits" else None
    loaded = load(sql, tables, spec, layers, logits_of)
    key = spec.view.inference_key
    names, lineage = classes_of(tables, key, config)
    return loaded, Question(filter_, config, spec.layer(), key, _assertion_time(sql), names, lineage)


def _assertion_time(sql: duckdb.DuckDBPyConnection) -> datetime:
    """Return the current time, or just after the layer's last assertion if its driver's clock was ahead."""
    last = sql.execute("select max(asserted_at)::timestamp from said_by_layer").fetchall()[0][0]
    now = datetime.now(UTC)
    return max(now, last.replace(tzinfo=UTC) + timedelta(microseconds=1)) if last else now


def _judge_and_commit(
    spec: FilterSpec, tables: Tables, loaded: Loaded, question: Question, judge: Judge, progress: _Progress
) -> FilterCounts:
    """Judge all parts and store their assertions; return the counts of all."""
    tally, pending, committed_s = FilterCounts(), list[pa.Table](), time.monotonic()
    judged = enumerate(judge(loaded.parts(), question), 1)
    while True:
        with progress.timed("judge_s"):
            parts, evaluated = next(judged, (len(loaded.starts), None))
        if evaluated is not None:
            tally += evaluated.tally
            pending.append(evaluated.rows)
            if sum(map(len, pending)) < COMMIT_ROWS and time.monotonic() - committed_s <= COMMIT_S:
                continue
        with progress.timed("commit_s"):
            filled = [table for table in pending if len(table)]
            if filled:
                append_assertions(tables, question.layer, question.inference_key, pa.concat_tables(filled))
        progress.tally, pending, committed_s = tally, [], time.monotonic()
        log.info("filter_progress", run_id=spec.run_id, parts=parts, of=len(loaded.starts), **asdict(tally))
        if evaluated is None:
            return tally


def _recount(sql: duckdb.DuckDBPyConnection, tables: Tables, layer: Layer, inference_key: str) -> int:
    """Count the layer's current assertions on the images and detections of this run, in the newest snapshot.

    Assertions on detections that no longer exist (pruned, then detected again with fewer) do not count.
    """
    sql.register("committed", dataset(tables.snapshot("assertions"), ASSERTIONS))
    rows = sql.execute(
        f"with current as (select n, rank from ({newest('committed', of='numbers')}) "
        "join numbers using (media_sha256) where action <> 'withdraw') "
        "select (select count(*) from current where rank is null) "
        "+ (select count(*) from current semi join boxes_n using (n, rank))",
        {"layer": layer.layer_id, "key": inference_key},
    )
    return int(rows.fetchall()[0][0])


def _report(
    spec: FilterSpec, loaded: Loaded, tally: FilterCounts, standing: int | None, started: float
) -> FilterReport:
    seconds, layer = time.monotonic() - started, spec.layer().layer_id
    return FilterReport(spec.run_id, layer, spec.kind, loaded.images, tally, standing, seconds)
