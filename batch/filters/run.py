"""One filter run, from its rows to closed accounts.

FilterSpec -> rows of its scope, in parts -> judged -> rows of `assertions`, exactly once -> counted again, plainly
A run that was stopped is run again: what it has said already holds, and only the rest is added.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import structlog

from archive.dataset import dataset
from archive.layers import Layer, append_said, keep_layer, newest, read_layers
from archive.schemas import ASSERTIONS
from archive.scratch import LARGE_MIB, scratch
from archive.tables import Tables
from batch.accounting import Counts
from batch.causes import recorded
from batch.filters.classifier import classes_of
from batch.filters.contract import ClassFilterConfig
from batch.filters.evaluate import Evaluated, Question
from batch.filters.load import Loaded, load
from batch.filters.registry import config_of, filter_of
from batch.filters.spec import FilterSpec
from batch.filters.tally import Tally
from batch.heartbeat import heartbeat
from batch.run_log import RunLog
from model_store.errors import AccountingOpen, BadRequest, StorageError
from model_store.libraries import resight_version

Judge = Callable[[Iterable[pa.Table], Question, int], Iterator[Evaluated]]
COMMIT_ROWS, COMMIT_S = 200_000, 10.0
log = structlog.get_logger("resight.filter")


@dataclass(frozen=True, slots=True)
class FilterReport:
    """`standing`: what the layer says of the scope by now, counted from the table."""

    run_id: str
    layer_id: str
    kind: str
    images: int
    cameras: int
    tally: Tally
    standing: int | None
    seconds: float

    def metrics(self) -> dict[str, Any]:
        facts = {"layer_id": self.layer_id, "filter": self.kind, "images": self.images}
        return facts | self.tally.as_dict() | {"standing": self.standing}

    def line(self) -> str:
        words = ", ".join(f"{name} {count}" for name, count in self.tally.as_dict().items())
        return f"{self.kind} {self.layer_id[:12]}: {words}"


@dataclass
class _SoFar:
    """The record of a run that is under way."""

    run_log: RunLog
    counts: Counts = field(default_factory=Counts)
    tally: Tally | None = None

    def record(self) -> None:
        metrics = self.tally.as_dict() if self.tally else None
        self.run_log.write("running", self.counts, metrics=metrics)


def dry_run(spec: FilterSpec, tables: Tables, judge: Judge) -> FilterReport:
    """The same figures; nothing is written. Raises BadRequest, StorageUnreachable."""
    started = time.monotonic()
    layer = spec.layer()
    with scratch("filter", LARGE_MIB) as sql:
        loaded, question = _loaded(sql, spec, tables, layer)
        tally = Tally()
        for found in judge(loaded.parts(), question, spec.actors):
            tally = tally.plus(found.tally)
    return _report(spec, layer, loaded, tally, None, started)


def execute_all(
    specs: Sequence[FilterSpec], tables: Tables, judge: Judge
) -> Iterator[FilterReport]:
    """One after the other. Raises as `execute`; those that come after are recorded as cancelled then."""
    for place, spec in enumerate(specs):
        try:
            report = execute(spec, tables, judge)
        except BaseException:
            words = f"not begun: run {spec.run_id}, which came before it, did not end well"
            with contextlib.suppress(StorageError):
                for later in specs[place + 1 :]:
                    RunLog(tables, later, later.model, "filter").write("cancelled", Counts(), words)
            raise
        yield report


def execute(spec: FilterSpec, tables: Tables, judge: Judge) -> FilterReport:
    """Raises ResightError (recorded in `runs`) when it does not end well."""
    started = time.monotonic()
    layer = spec.layer()
    run_log = RunLog(tables, spec, spec.model, "filter")
    so_far = _SoFar(run_log)
    stages: dict[str, float] = {}
    try:
        run_log.begin(so_far.counts)
        with heartbeat(so_far.record):
            keep_layer(tables, layer, resight_version())
            with scratch("filter", LARGE_MIB) as sql:
                loaded, question = _loaded(sql, spec, tables, layer)
                stages["load_s"] = time.monotonic() - started
                so_far.counts = Counts(requested=loaded.images)
                so_far.record()
                log.info(
                    "planned",
                    run_id=spec.run_id,
                    images=loaded.images,
                    rows=loaded.rows,
                    parts=len(loaded.starts),
                )
                tally = _say(spec, tables, layer, loaded, question, judge, so_far, stages)
                counted_s = time.monotonic()
                standing = _recount(sql, tables, layer, spec.view.inference_key)
                stages["recount_s"] = time.monotonic() - counted_s
        if standing != tally.flagged:
            raise AccountingOpen(
                f"run {spec.run_id} was told {tally.flagged} things, and layer {layer.layer_id[:12]} says "
                f"{standing} of the same rows: another run of it may be at work; run it again"
            )
    except BaseException as error:
        raise recorded(run_log, Counts(), error) from None
    report = _report(spec, layer, loaded, tally, standing, started)
    counts = Counts(requested=loaded.images, reused=loaded.images)
    rounded = {name: round(seconds, 3) for name, seconds in stages.items()}
    run_log.write("sealed", counts, report.line(), rounded, report.metrics())
    return report


def _loaded(
    sql: duckdb.DuckDBPyConnection, spec: FilterSpec, tables: Tables, layer: Layer
) -> tuple[Loaded, Question]:
    one, config = filter_of(spec.kind), config_of(spec.kind, spec.config)
    known = read_layers(tables)
    lost = [name for name in (*spec.input_layers, *spec.view.layers) if name not in known]
    if lost:
        raise BadRequest(f"layer {lost[0]} is not in {tables.url}/layers")
    judged = ""
    if isinstance(config, ClassFilterConfig) and config.needs == "logits":
        judged = config.classifier
    loaded = load(
        sql,
        tables,
        spec.view,
        [known[name] for name in spec.view.layers],
        [known[name] for name in spec.input_layers],
        layer.layer_id,
        spec.scope,
        one.context,
        judged or None,
    )
    names, lineage = classes_of(tables, spec.view.inference_key, config)
    question = Question(one, config, layer, spec.view.inference_key, _after(sql), names, lineage)
    return loaded, question


def _after(sql: duckdb.DuckDBPyConnection) -> datetime:
    """Now, or just after the last word of the layer where that driver's clock was ahead."""
    last = sql.sql("select max(asserted_at)::timestamp from said_by_layer").fetchall()[0][0]
    now = datetime.now(UTC)
    return max(now, last.replace(tzinfo=UTC) + timedelta(microseconds=1)) if last else now


def _say(
    spec: FilterSpec,
    tables: Tables,
    layer: Layer,
    loaded: Loaded,
    question: Question,
    judge: Judge,
    so_far: _SoFar,
    stages: dict[str, float],
) -> Tally:
    """`stages` gains what judging and commits took."""
    began_s = saved_s = time.monotonic()
    tally, commit_s, held = Tally(), 0.0, list[pa.Table]()
    for parts, found in enumerate(judge(loaded.parts(), question, spec.actors), 1):
        tally = so_far.tally = tally.plus(found.tally)
        held.append(found.rows)
        now_s = time.monotonic()
        if sum(map(len, held)) >= COMMIT_ROWS or now_s - saved_s > COMMIT_S:
            commit_s += _commit(tables, layer, spec, held)
            held, saved_s = [], now_s
            _tell(spec, loaded, tally, parts)
    commit_s += _commit(tables, layer, spec, held)
    _tell(spec, loaded, tally, len(loaded.starts))
    stages |= {"judge_s": time.monotonic() - began_s - commit_s, "commit_s": commit_s}
    return tally


def _tell(spec: FilterSpec, loaded: Loaded, tally: Tally, parts: int) -> None:
    of = len(loaded.starts)
    log.info("filter_progress", run_id=spec.run_id, parts=parts, of=of, **tally.as_dict())


def _commit(tables: Tables, layer: Layer, spec: FilterSpec, held: list[pa.Table]) -> float:
    """Seconds that it took."""
    began_s = time.monotonic()
    rows = [table for table in held if len(table)]
    if rows:
        append_said(tables, layer, spec.view.inference_key, pa.concat_tables(rows))
    return time.monotonic() - began_s


def _recount(
    sql: duckdb.DuckDBPyConnection, tables: Tables, layer: Layer, inference_key: str
) -> int:
    """Plainly, from the newest snapshot: what the layer says of the images and detections of this run.

    A detection that is there no more (pruned, and detected again with fewer) has words, and is nowhere shown.
    """
    sql.register("there", dataset(tables.snapshot("assertions"), ASSERTIONS))
    asked = {"layer": layer.layer_id, "key": inference_key}
    rows = sql.execute(
        f"with said as (select n, rank from ({newest('there', of='numbers')}) join numbers using (media_sha256) "
        "where action <> 'withdraw') select (select count(*) from said where rank is null) "
        "+ (select count(*) from said semi join boxes_n using (n, rank))",
        asked,
    )
    return int(rows.fetchall()[0][0])


def _report(
    spec: FilterSpec,
    layer: Layer,
    loaded: Loaded,
    tally: Tally,
    standing: int | None,
    started: float,
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
