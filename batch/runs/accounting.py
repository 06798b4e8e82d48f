"""Account for every unit of a pass: requested = ok + empty + failed + reused, or the run has not succeeded.

rows that arrive --PassTally--> Counts of the progress; table --read_back--> the final Counts, of what is stored
Both sum the figures of the pass (`batch/planning/passes.py`), so that they count in the same way.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from textwrap import shorten
from typing import Any

import duckdb
import pyarrow as pa

from archive.delta.snapshot import scan
from archive.delta.sql_literal import literal
from archive.delta.tables import Tables
from archive.schemas import TABLES
from archive.views.publications import last_event
from archive.views.query import query
from batch.planning.passes import DAMAGED, TRIED_AGAIN, DetectPass, Pass
from batch.planning.plan import Plan, same_key
from model_store.errors import AccountingOpen, NothingWorked


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of images, or of the detections that are classified. `detections` is the sum over rows of this run;
    `bytes` is the size of the files to read, from the plan. For snips these are the files written and their size.
    `partly_decoded` images are among `ok` and `empty`, and `failed_before` among `reused`; the table `runs` has both in
    `metrics`.
    """

    requested: int = 0
    ok: int = 0
    empty: int = 0
    failed: int = 0
    reused: int = 0
    detections: int = 0
    bytes: int = 0
    partly_decoded: int = 0
    failed_before: int = 0

    @property
    def inferred(self) -> int:
        return self.ok + self.empty + self.failed

    @property
    def closed(self) -> bool:
        return self.requested == self.inferred + self.reused

    def line(self, words: str = DetectPass.line) -> str:
        """Return the accounting line of the report; `words` is that of the pass."""
        return words.format(sign="=" if self.closed else "!=", **asdict(self))


def planned_counts(plan: Plan) -> Counts:
    """Return the counts before any row arrives."""
    size = 0 if "bytes" in plan.work.figures else plan.todo_bytes
    return Counts(plan.requested, reused=plan.reused, bytes=size)


class PassTally:
    """Counts of a pass, with the rows that have arrived."""

    def __init__(self, work: Pass, counts: Counts) -> None:
        self.counts, self._names = counts, list(work.figures)
        self._sql = duckdb.connect(config={"threads": 1})
        self._sql.execute("pragma disable_optimizer")  # it takes longer than the sums of a chunk
        self._query = f"select {_sums(work)} from arrived"
        self._columns = set(re.findall(r"\w+", self._query)) & set(TABLES[work.table].names)

    def add(self, rows: pa.Table) -> Counts:
        """Return the counts with the rows of one more chunk."""
        self._sql.register("arrived", rows.select(sorted(self._columns)))
        sums = zip(self._names, self._sql.execute(self._query).fetchall()[0], strict=True)
        more = {name: getattr(self.counts, name) + n for name, n in sums}
        self.counts = replace(self.counts, **more)
        return self.counts


def _sums(work: Pass, condition: str = "true") -> str:
    return ", ".join(
        f"coalesce(sum(({figure})::bigint) filter ({condition}), 0)::bigint" for figure in work.figures.values()
    )


_STORED = """
    from (select *, md5_number(media_sha256) as id from {table}_now where {same}) semi join {wanted} using ({ids})
"""
_COUNT = """
    select count(*), count(distinct ({ids})), count(*) filter (status = 'failed'),
        count(*) filter (run_id = $run and status = 'failed' and (error_code is null or error_code in {tried_again})),
        {sums} {stored}
"""


def read_back(tables: Tables, plan: Plan, run_id: str) -> Counts:
    """Return the final counts, read from the table.

    Raises AccountingOpen if a unit has no row or several. Raises NothingWorked as the pass defines it.
    """
    work, sql = plan.work, plan.scratch.sql
    now = tables.existing(work.table)
    scan(sql, f"{work.table}_now", now, TABLES[work.table], work.key["inference_key"])
    names = {"table": work.table, "wanted": work.wanted, "ids": work.ids}
    stored = _STORED.format(**names, same=same_key(work))
    sums = _sums(work, "run_id = $run")
    count = _COUNT.format(ids=work.ids, tried_again=TRIED_AGAIN, sums=sums, stored=stored)
    rows, units, failed_ever, external, *found = sql.execute(count, {"run": run_id}).fetchall()[0]
    if rows != units:
        doubled = f"select 1 {stored} group by {work.ids} having count(*) > 1"
        several = len(sql.execute(doubled).fetchall())
        raise AccountingOpen(f"{several} {work.units} have more than one row in {work.table}")
    counts = replace(planned_counts(plan), **dict(zip(work.figures, found, strict=True)))
    counts = replace(counts, reused=units - counts.inferred, failed_before=failed_ever - counts.failed)
    if not counts.closed:
        raise AccountingOpen(
            f"{counts.line(work.line)}: {plan.requested - units} {work.units} have no row in {work.table}; "
            "run again to add them"
        )
    failure = work.nothing_worked(plan, counts, failed_ever, external)
    if failure:
        units, which = failure
        rows_of = "all_results" if work.table == "results" else work.table
        raise NothingWorked(
            f'all {units} {work.units} {which}; see: resight sql "select error_code, '
            f"error_detail, count(*) from {rows_of} where status = 'failed' group by all\""
        )
    return counts


SHOWN = 5
MAX_CHARS = 200
_FAILED = """
    select media_sha256, coalesce(any_value(path), media_sha256) as file, any_value(error_code) as error_code,
        any_value(error_detail) as error_detail
    from {rows} left join images using (media_sha256) where status = 'failed' and run_id = {run} {more}
    group by media_sha256 order by file limit {most}
"""
_ALL = (
    "select path, error_code, error_detail from {rows} join images using (media_sha256) "
    "where status = 'failed' and run_id = {run}"
)


_PARTLY = (
    "select path, status, decode_note from all_results join images using (media_sha256) "
    "where decode_note like '%{note}%' and run_id = {run}"
)


def partly_decoded(run_id: str, images: int) -> str:
    """Return a line to print about images with damaged data, which are counted as ok or empty."""
    statement = _PARTLY.format(note=DAMAGED, run=literal(run_id))
    return f'partly decoded, counted as ok or empty: {images}; see: resight sql "{statement}"'


_BEFORE = (
    "select path, error_code, error_detail from media join all_results using (media_sha256) "
    "where status = 'failed' and missing_since is null and run_id <> {run} and inference_key = {key}"
)


def failed_before(tables: Tables, run_id: str, images: int) -> list[str]:
    """Return a line to print about reused results of images that an earlier run could not read, by file."""
    event = last_event(tables, run_id)
    if event is None or not images:
        return []
    statement = _BEFORE.format(run=literal(run_id), key=literal(event["inference_key"]))
    return [f'failed in earlier runs, counted as reused: {images}; see: resight sql "{statement}"']


@dataclass(frozen=True, slots=True)
class Failures:
    """The first files that failed in a run, by path (`file`, `error_code`, `error_detail`), and SQL that lists all."""

    files: list[dict[str, Any]]
    statement: str

    def lines(self) -> list[str]:
        """Return lines to print, none if nothing failed."""
        lines = [" ".join(("failed:", *(f"{value}:" for value in row.values())))[:-1] for row in self.files]
        hint = [f'all that failed: resight sql "{self.statement}"'] if lines else []
        return [*(shorten(line, MAX_CHARS, placeholder=" …") for line in lines), *hint]


def failures(tables: Tables, run_id: str) -> Failures:
    """Return the failures of a run, none if it is unknown. Raises StorageError."""
    event = last_event(tables, run_id)
    if event is None:
        return Failures([], "")
    failed = [
        {name: value for name, value in image.items() if name != "media_sha256"}
        for image in _failed(tables, event, SHOWN)
    ]
    return Failures(failed, _ALL.format(rows=_rows(event), run=literal(run_id)))


def failed_images(tables: Tables, run_id: str, most: int) -> list[dict[str, Any]]:
    """Return the first images that failed in a run, by path, also with `media_sha256`. Raises StorageError."""
    event = last_event(tables, run_id)
    return _failed(tables, event, most) if event else []


def _failed(tables: Tables, event: dict[str, Any], most: int) -> list[dict[str, Any]]:
    detects, run = event["kind"] == "detect", literal(event["run_id"])
    more = f"and inference_key = {literal(event['inference_key'])}" if detects else ""
    sql = _FAILED.format(rows=_rows(event), run=run, more=more, most=most)
    return query(tables, sql).to_pylist()


def _rows(event: dict[str, Any]) -> str:
    return {"detect": "all_results", "embed": "embeddings"}.get(event["kind"], "classifications")
