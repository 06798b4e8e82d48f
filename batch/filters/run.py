"""Execute a filter run, from its rows to closed accounts.

FilterSpec -> rows of its scope, in parts -> judged -> rows of `assertions`, exactly once -> recount from the table

To resume a stopped run, run it again: stored assertions are kept, and only missing ones are added.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import structlog

from archive.annotations.layers import Layer, append_said, keep_layer, newest, read_layers
from archive.delta.scratch_db import LARGE_MIB, scratch
from archive.delta.snapshot import dataset
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS
from batch.filters.contract import ClassFilterConfig
from batch.filters.evaluate import Evaluated, Question, Tally, evaluate
from batch.filters.load import Loaded, load
from batch.filters.registry import config_of, filter_of
from batch.filters.spec import FilterSpec
from batch.filters.support.classifier import classes_of
from batch.runs.accounting import Counts
from batch.runs.heartbeat import heartbeat
from batch.runs.record import RunLog, recorded
from model_store.errors import AccountingOpen, BadRequest, StorageError
from model_store.libraries import resight_version

Judge = Callable[[Iterable[pa.Table], Question, int], Iterator[Evaluated]]
COMMIT_ROWS, COMMIT_S = 200_000, 10.0
log = structlog.get_logger("resight.filter")


@dataclass(frozen=True, slots=True)
class FilterReport:
    """Result of a filter run. `standing` counts the layer's current assertions in its scope; None in a dry run."""

    run_id: str
    layer_id: str
    kind: str
    images: int
    cameras: int
    tally: Tally
    standing: int | None
    seconds: float

    def metrics(self) -> dict[str, Any]:
        identity = {"layer_id": self.layer_id, "filter": self.kind, "images": self.images}
        return identity | self.tally.as_dict() | {"standing": self.standing}

    def line(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.tally.as_dict().items())
        return f"{self.kind} {self.layer_id[:12]}: {counts}"


@dataclass
class _Progress:
    """State of a run that its heartbeat, and the end of a run that fails, record. `tally` is of the committed rows."""

    run_log: RunLog
    counts: Counts = field(default_factory=Counts)
    tally: Tally | None = None

    def record(self) -> None:
        self.run_log.write("running", self.counts, metrics=self.metrics())

    def metrics(self) -> dict[str, int] | None:
        return self.tally.as_dict() if self.tally else None


def dry_run(spec: FilterSpec, tables: Tables, judge: Judge) -> FilterReport:
    """Return the report of a run without writing anything. Raises BadRequest, StorageUnreachable."""
    started = time.monotonic()
    layer = spec.layer()
    with scratch("filter", LARGE_MIB) as sql:
        loaded, question = _loaded(sql, spec, tables, layer)
        tally = Tally()
        for evaluated in judge(loaded.parts(), question, spec.actors):
            tally = tally.plus(evaluated.tally)
    return _report(spec, layer, loaded, tally, None, started)


def here(parts: Iterable[pa.Table], question: Question, actors: int) -> Iterator[Evaluated]:
    """Evaluate the parts one by one in this process; `actors` is ignored."""
    del actors
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
                    run_log = RunLog(tables, later, later.model, "filter")
                    run_log.write("cancelled", Counts(), message)
            raise
        yield report


def execute(spec: FilterSpec, tables: Tables, judge: Judge) -> FilterReport:
    """Execute one run. Raises ResightError if it fails, and records the error in `runs`."""
    started = time.monotonic()
    layer = spec.layer()
    run_log = RunLog(tables, spec, spec.model, "filter")
    progress = _Progress(run_log)
    stages: dict[str, float] = {}
    try:
        run_log.begin(progress.counts)
        with heartbeat(progress.record):
            keep_layer(tables, layer, resight_version())
            with scratch("filter", LARGE_MIB) as sql:
                loaded, question = _loaded(sql, spec, tables, layer)
                stages["load_s"] = time.monotonic() - started
                progress.counts = Counts(requested=loaded.images)
                progress.record()
                log.info(
                    "planned", run_id=spec.run_id, images=loaded.images, rows=loaded.rows, parts=len(loaded.starts)
                )
                tally = _judge_and_commit(spec, tables, layer, loaded, question, judge, progress, stages)
                recount_began_s = time.monotonic()
                standing = _recount(sql, tables, layer, spec.view.inference_key)
                stages["recount_s"] = time.monotonic() - recount_began_s
        if standing != tally.flagged:
            raise AccountingOpen(
                f"accounting mismatch in run {spec.run_id}: the filter produced {tally.flagged} assertions, layer "
                f"{layer.layer_id[:12]} holds {standing}; another run of the layer may be active: run it again"
            )
    except BaseException as error:
        cause = recorded(run_log, progress.counts, error, _rounded(stages), progress.metrics())
        raise cause from cause.__cause__
    report = _report(spec, layer, loaded, tally, standing, started)
    counts = Counts(requested=loaded.images, reused=loaded.images)
    run_log.write("sealed", counts, report.line(), _rounded(stages), report.metrics())
    return report


def _rounded(stages: Mapping[str, float]) -> dict[str, float]:
    return {name: round(seconds, 3) for name, seconds in stages.items()}


def _loaded(sql: duckdb.DuckDBPyConnection, spec: FilterSpec, tables: Tables, layer: Layer) -> tuple[Loaded, Question]:
    filter_, config = filter_of(spec.kind), config_of(spec.kind, spec.config)
    layers = read_layers(tables)
    missing = [name for name in (*spec.input_layers, *spec.view.layers) if name not in layers]
    if missing:
        raise BadRequest(f"layer {missing[0]} is not in {tables.url}/layers")
    classifier_key = ""
    if isinstance(config, ClassFilterConfig) and config.needs == "logits":
        classifier_key = config.classifier
    loaded = load(
        sql,
        tables,
        spec.view,
        [layers[name] for name in spec.view.layers],
        [layers[name] for name in spec.input_layers],
        layer.layer_id,
        spec.scope,
        filter_.context,
        classifier_key or None,
    )
    names, lineage = classes_of(tables, spec.view.inference_key, config)
    asserted_at = _assertion_time(sql)
    question = Question(filter_, config, layer, spec.view.inference_key, asserted_at, names, lineage)
    return loaded, question


def _assertion_time(sql: duckdb.DuckDBPyConnection) -> datetime:
    """Return the current time, or just after the layer's last assertion if its driver's clock was ahead."""
    last = sql.sql("select max(asserted_at)::timestamp from said_by_layer").fetchall()[0][0]
    now = datetime.now(UTC)
    return max(now, last.replace(tzinfo=UTC) + timedelta(microseconds=1)) if last else now


def _judge_and_commit(
    spec: FilterSpec,
    tables: Tables,
    layer: Layer,
    loaded: Loaded,
    question: Question,
    judge: Judge,
    progress: _Progress,
    stages: dict[str, float],
) -> Tally:
    """Judge all parts and store their assertions; add `judge_s` and `commit_s` to `stages`."""
    began_s = committed_s = time.monotonic()
    tally, commit_s, pending = Tally(), 0.0, list[pa.Table]()
    try:
        for parts, evaluated in enumerate(judge(loaded.parts(), question, spec.actors), 1):
            tally = tally.plus(evaluated.tally)
            pending.append(evaluated.rows)
            now_s = time.monotonic()
            if sum(map(len, pending)) >= COMMIT_ROWS or now_s - committed_s > COMMIT_S:
                commit_s += _commit(tables, layer, spec, pending)
                progress.tally = tally
                pending, committed_s = [], now_s
                _log_progress(spec, loaded, tally, parts)
        commit_s += _commit(tables, layer, spec, pending)
        progress.tally = tally
    finally:
        stages |= {"judge_s": time.monotonic() - began_s - commit_s, "commit_s": commit_s}
    _log_progress(spec, loaded, tally, len(loaded.starts))
    return tally


def _log_progress(spec: FilterSpec, loaded: Loaded, tally: Tally, parts: int) -> None:
    of = len(loaded.starts)
    log.info("filter_progress", run_id=spec.run_id, parts=parts, of=of, **tally.as_dict())


def _commit(tables: Tables, layer: Layer, spec: FilterSpec, pending: list[pa.Table]) -> float:
    """Store the rows; return the seconds it took."""
    began_s = time.monotonic()
    filled = [table for table in pending if len(table)]
    if filled:
        append_said(tables, layer, spec.view.inference_key, pa.concat_tables(filled))
    return time.monotonic() - began_s


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
    spec: FilterSpec, layer: Layer, loaded: Loaded, tally: Tally, standing: int | None, started: float
) -> FilterReport:
    return FilterReport(
        spec.run_id,
        layer.layer_id,
        spec.kind,
        loaded.images,
        loaded.cameras,
        tally,
        standing,
        time.monotonic() - started,
    )
