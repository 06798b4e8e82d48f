"""Record human statements in batches, which can be withdrawn and repeated as a whole.

record_all(tables, [Batch(batch_id, actor, statements), ...]) -> [Recorded, ...], in one commit
A batch with `of_batch` withdraws each statement of that one, or with `repeats` records them again.
A client chooses each `batch_id`; a batch that is recorded already adds nothing and returns its first answer. Times are
those of this process, but always later than every earlier row about the image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pydantic import Field

from archive.annotations.annotation_file import BOX, DIGEST, read_statements
from archive.annotations.assertions import ANNOTATIONS, HUMAN, make_standing, require_kept
from archive.annotations.import_file import located_rows
from archive.defaults import PRODUCTION
from archive.delta.relations import Relations
from archive.delta.snapshot import memory_database, open_tables, scan
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import ASSERTIONS
from archive.views.publications import view_named
from archive.views.query import connect
from model_store.errors import BadRequest, Conflict, ResightError
from model_store.frozen import Frozen

BATCH_ID = r"^[0-9a-f]{32}$"
MAX_IMAGES = 1_000
"""Maximum number of images that an answer lists."""
MAX_LOADED = 200_000
"""Maximum size of a selection that loads only the results of its images, and not those of the whole view."""
_RELATIONS = Relations(*ANNOTATIONS.files, Path(__file__).parent / "batches.sql")
_COPIED = ("actor", "action", "media_sha256", "inference_key", "rank", *BOX, "label", "reason")
_STATEMENTS = pa.schema(
    [("turn", pa.int64()), ("number", pa.int64()), ("batch_id", pa.string()), ("seen", pa.string())]
    + [ASSERTIONS.field(name) for name in _COPIED]
)
_REQUESTED = pa.schema(
    [("turn", pa.int64())]
    + [(name, pa.bool_()) for name in ("repeats", "compares", "leaves", "leaves_own")]
    + [(name, pa.string()) for name in ("batch_id", "actor", "of_batch")]
)
Action = Literal["keep", "relabel", "suppress"]
_SHOWN = "from detections semi join chosen using (media_sha256)"
_UNDECIDED = "said_by is distinct from 'human'"
_DETECTION = f"media_sha256, inference_key, rank, {', '.join(BOX)}"
_SELECTED: dict[Action, str] = {
    "keep": f"select 'keep' as action, {_DETECTION}, label {_SHOWN} where {_UNDECIDED} union all by name "
    "select 'suppress' as action, media_sha256 from results semi join chosen using (media_sha256) "
    "where status = 'empty' and media_sha256 not in (select media_sha256 from standing where x1_px is null)",
    "relabel": f"select if(rank is null, 'add', 'relabel') as action, {_DETECTION}, $label as label "
    f"{_SHOWN} where ({_UNDECIDED} or label <> $label) and label is not distinct from coalesce($of_label, label)",
    "suppress": "select 'suppress' as action, media_sha256 from images semi join chosen using (media_sha256)",
}
_BY_OTHERS = """
    select media_sha256, list(distinct actor) from standing semi join chosen using (media_sha256)
    where actor <> $actor and media_sha256 not in (select media_sha256 from assertion_rows where batch_id = $batch_id)
    group by media_sha256
"""
_STORED = """
    create or replace temp table stored as
    from all_rows where method = 'human' and media_sha256 in (
        select media_sha256 from statements union all
        select media_sha256 from all_rows where batch_id in (
            select batch_id from requested union all select of_batch from requested where of_batch is not null))
"""
_OF_SELECTIONS = """
    create or replace temp table assertion_rows as from stored where media_sha256 in (
        select media_sha256 from statements join requested using (batch_id) where leaves)
"""
_NOTHING_DECIDED = "create or replace temp table decided (batch_id varchar, media_sha256 varchar, actor varchar)"
_DECIDED = """
    insert into decided select distinct r.batch_id, media_sha256, s.actor
    from statements n join requested r using (batch_id) join standing s using (media_sha256)
    where leaves and (leaves_own or s.actor <> r.actor)
"""
_LEFT = """
    select batch_id, count(distinct media_sha256), list(distinct actor)
    from decided anti join recorded using (batch_id, media_sha256) group by batch_id
"""
_ADDED = """
    select r.batch_id, count(recorded.batch_id),
        if(any_value(r.of_batch) in (select batch_id from stored), null, any_value(r.of_batch))
    from requested r left join recorded using (batch_id) group by r.batch_id
"""
_CHANGED = f"""
    select batch_id, list(distinct media_sha256 order by media_sha256)[:{MAX_IMAGES}], list(distinct other)
    from changed_images group by batch_id
"""
_KEPT = """
    select batch_id, count(distinct withdraws), list(distinct other) from kept_statements group by batch_id
"""


class BatchStatement(Frozen):
    """A statement about a detection (`inference_key` and `rank`), a box, or without both about the whole image.

    `seen` is the assertion_id that stood for its author: about the same thing, or the newest in the image if the
    statement is about the whole image.
    """

    action: Literal["keep", "relabel", "suppress", "add", "flag"]
    media_sha256: str = Field(pattern=DIGEST)
    inference_key: str | None = None
    rank: int | None = None
    x1_px: float | None = None
    y1_px: float | None = None
    x2_px: float | None = None
    y2_px: float | None = None
    label: str | None = Field(default=None, max_length=200)
    reason: str | None = Field(default=None, max_length=2_000)
    seen: str | None = Field(default=None, pattern=DIGEST)


class Recorded(Frozen):
    """Answer to a batch, the same each time. `added` counts its rows.

    `changed_meanwhile` lists images (at most MAX_IMAGES) in which it replaced a statement that its author had not seen.
    `kept` counts withdrawn statements that later ones had replaced already: these stay. `left` counts images of a
    selection about which others had stated something: these are left. `by` names the other people.
    """

    batch_id: str
    added: int
    changed_meanwhile: tuple[str, ...] = ()
    kept: int = 0
    left: int = 0
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class StatementBatch:
    """Statements, or rows of `selected` (statements without a check), or an earlier batch to withdraw or repeat.

    Rows of `selected` about images that other people, or with `leaves_own` anyone, have decided by the commit are left
    out, except with `replaces`.
    """

    batch_id: str
    actor: str
    statements: tuple[BatchStatement, ...] = ()
    selected: pa.Table | None = None
    of_batch: str | None = None
    repeats: bool = False
    replaces: bool = False
    leaves_own: bool = False

    @property
    def size(self) -> int:
        """Number of its statements; 1 for a batch about another one."""
        return bool(self.of_batch) or len(self.statements) or len(self.selected or ())

    @property
    def leaves(self) -> bool:
        """Return whether it leaves images that are decided already."""
        return self.selected is not None and not self.replaces

    @property
    def images(self) -> set[str]:
        """The images that it states something about, except those of an earlier batch."""
        selected = () if self.selected is None else self.selected["media_sha256"].to_pylist()
        return {statement.media_sha256 for statement in self.statements}.union(selected)


def selected_rows(
    tables: Tables, media: pa.Table, action: Action, label: str | None, view: str, of_label: str | None = None
) -> pa.Table:
    """Return statements about all images of `media` (media_sha256), by the detections that the view shows.

    keep: each detection is right, and images without one are empty. relabel: each, or each that is an `of_label`, is a
    `label`. suppress: the images are empty. Detections that people have decided in this way already are left out.
    Raises BadRequest, StorageError.
    """
    if (action == "relabel") != bool(label):
        raise BadRequest(f"{action} needs {'a' if action == 'relabel' else 'no'} label")
    if of_label is not None and action != "relabel":
        raise BadRequest(f"of_label '{of_label[:80]}' applies to relabel only")
    published = None if view == PRODUCTION else view_named(tables, view)
    images = media["media_sha256"] if len(media) <= MAX_LOADED else None
    with connect(tables, published, images, statement=_SELECTED[action]) as sql:
        sql.register("chosen", media.select(["media_sha256"]))
        values = {"label": label, "of_label": of_label} if label else {}
        return sql.sql(_SELECTED[action], params=values).to_arrow_table()


def decided_by_others(tables: Tables, media: pa.Table, actor: str, batch_id: str = "") -> dict[str, set[str]]:
    """Return the images of `media` with valid statements of other people than `actor` ("": of anyone), and these.

    Images in a recorded batch `batch_id` are left out, so that it has the same answer each time.
    """
    with open_tables(tables) as sql:
        make_standing(sql, tables)
        sql.register("chosen", media.select(["media_sha256"]))
        values = {"actor": actor, "batch_id": batch_id}
        return {sha: set(people) for sha, people in sql.execute(_BY_OTHERS, values).fetchall()}


def record_all(
    tables: Tables, batches: Sequence[StatementBatch], protected: set[str] | None = None
) -> list[Recorded | ResightError]:
    """Record batches with different ids in one commit; return the answer to each, or its BadRequest or Conflict.

    A batch sees the rows of earlier commits, not of others in `batches`. `protected` has inference keys that no prune
    can remove, because this process recorded statements about them; it is updated. Raises StorageError.
    """
    statements, errors = _checked(tables, batches)
    sql = memory_database()
    sql.register("requested", _requested(batches)).register("statements", statements)

    def new_rows(snapshot: DeltaTable | None, _: pa.Table) -> pa.Table:
        scan(sql, "all_rows", snapshot, ASSERTIONS)
        sql.execute("set variable now = $now", {"now": now()})
        sql.execute(_STORED)
        sql.execute(_NOTHING_DECIDED)
        if any(batch.leaves for batch in batches):
            sql.execute(_OF_SELECTIONS)
            ANNOTATIONS.create(sql, "standing")
            sql.execute(_DECIDED)
        _RELATIONS.create(sql, "new_rows")
        rows = _completed(sql.sql("from new_rows").to_arrow_table(), ASSERTIONS)
        sql.register("added", rows).execute("insert into stored by name from added")
        return rows

    none = ASSERTIONS.empty_table()
    if len(statements) or tables.existing("assertions") is not None:
        Writer(tables, "assertions", HUMAN).append(none, new_rows)
        errors |= _pruned(tables, statements, set() if protected is None else protected)
    else:
        new_rows(None, none)
    answers = _answers(sql)
    return [_answer(answers[batch.batch_id], errors.get(batch.batch_id)) for batch in batches]


def now() -> datetime:
    return datetime.now(UTC)


def _answer(answer: Recorded | ResightError, error: ResightError | None) -> Recorded | ResightError:
    """Return the error of a batch, unless the batch was recorded by an earlier request."""
    if isinstance(error, BadRequest) and isinstance(answer, Recorded) and answer.added:
        return answer
    return error or answer


def _checked(tables: Tables, batches: Sequence[StatementBatch]) -> tuple[pa.Table, dict[str, ResightError]]:
    """Return the valid rows of `statements`, and the error of each batch with an invalid statement."""
    rows = [
        statement.model_dump(exclude={"seen"}) | {"actor": batch.actor}
        for batch in batches
        for statement in batch.statements
    ]
    parsed, wrong = read_statements(rows, {"asserted_at": now().isoformat()})
    located = located_rows(tables, parsed, wrong)
    parts, errors = [_STATEMENTS.empty_table()], dict[str, ResightError]()
    before = 0
    for turn, batch in enumerate(batches):
        numbers = range(1, len(batch.statements) + 1)
        found = {n: located[before + n] for n in numbers if before + n in located}
        why = _ambiguous(found) | {n: wrong[before + n] for n in numbers if before + n in wrong}
        if not batch.size and batch.selected is None:
            why[1] = "missing: a batch needs at least one"
        before += len(numbers)
        if why:
            lines = [f"statement {number}: {reason}" for number, reason in sorted(why.items())]
            errors[batch.batch_id] = BadRequest("\n".join(["nothing was recorded", *lines]))
            continue
        seen = [{"number": n, "seen": batch.statements[n - 1].seen} for n in found]
        of_batch = [row | more for row, more in zip(found.values(), seen, strict=True)]
        part = pa.Table.from_pylist(of_batch, schema=_STATEMENTS)
        if batch.selected is not None:
            counted = pa.array(np.arange(1, len(batch.selected) + 1))
            part = _completed(batch.selected.append_column("number", counted), _STATEMENTS)
        for name, value in (("turn", turn), ("batch_id", batch.batch_id), ("actor", batch.actor)):
            column = pa.repeat(pa.scalar(value, _STATEMENTS.field(name).type), len(part))
            part = part.set_column(_STATEMENTS.get_field_index(name), name, column)
        parts.append(part)
    return pa.concat_tables(parts), errors


def _completed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows in the columns of the schema, null where they lack one."""
    full = pa.concat_tables([schema.empty_table(), rows], promote_options="permissive")
    return full.select(schema.names).cast(schema)


def _ambiguous(rows: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
    """Return an error for each statement about the thing of an earlier one of its batch: neither would be later."""
    errors: dict[int, str] = {}
    by_image = defaultdict[str, list[int]](list)
    for number, row in rows.items():
        for other in by_image[row["media_sha256"]]:
            if _is_same_thing(row, rows[other]):
                errors[number] = f"it is about the same thing as statement {other} of this batch"
        by_image[row["media_sha256"]].append(number)
    return errors


def _is_same_thing(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether one is about the image of both, or both are about one detection or have equal corners."""
    if row["x1_px"] is None or other["x1_px"] is None:
        return True
    if row["inference_key"] and row["inference_key"] == other["inference_key"]:
        return bool(row["rank"] == other["rank"])
    return all(np.float32(row[name]) == np.float32(other[name]) for name in BOX)


def _requested(batches: Sequence[StatementBatch]) -> pa.Table:
    same = ("batch_id", "actor", "of_batch", "repeats", "leaves_own")
    rows = [
        {"turn": turn, "compares": batch.selected is None, "leaves": batch.leaves}
        | {name: getattr(batch, name) for name in same}
        for turn, batch in enumerate(batches)
    ]
    return pa.Table.from_pylist(rows, schema=_REQUESTED)


def _pruned(tables: Tables, statements: pa.Table, protected: set[str]) -> dict[str, ResightError]:
    """Return a Conflict for each batch about results that were pruned concurrently; update `protected`."""
    errors: dict[str, ResightError] = {}
    for key in set(statements["inference_key"].to_pylist()) - {None} - protected:
        try:
            require_kept(tables, {key})
            protected.add(key)
        except Conflict as error:
            of_key = statements.filter(pc.field("inference_key") == key)
            errors |= dict.fromkeys(of_key["batch_id"].to_pylist(), error)
    return errors


def _answers(sql: duckdb.DuckDBPyConnection) -> dict[str, Recorded | ResightError]:
    """Return the answer to each batch by its id, after its rows were committed."""
    _RELATIONS.create(sql, "assertion_rows")
    changed, kept, left = dict[str, list[str]](), dict[str, int](), dict[str, int]()
    others = defaultdict[str, set[str]](set)
    for batch_id, count, people in sql.execute(_LEFT).fetchall():
        left[batch_id] = count
        others[batch_id].update(people)
    if sql.execute("select 1 from assertion_rows limit 1").fetchall():
        _RELATIONS.create(sql, "changed_images", "kept_statements")
        for batch_id, images, people in sql.execute(_CHANGED).fetchall():
            changed[batch_id] = images
            others[batch_id].update(people)
        for batch_id, count, people in sql.execute(_KEPT).fetchall():
            kept[batch_id] = count
            others[batch_id].update(people)
    answers: dict[str, Recorded | ResightError] = {}
    for batch_id, added, unknown in sql.execute(_ADDED).fetchall():
        if unknown:
            answers[batch_id] = BadRequest(f"unknown batch {unknown}: it was never recorded")
            continue
        answers[batch_id] = Recorded(
            batch_id=batch_id,
            added=added,
            changed_meanwhile=tuple(changed.get(batch_id, ())),
            kept=kept.get(batch_id, 0),
            left=left.get(batch_id, 0),
            by=tuple(sorted(others[batch_id] - {None})),
        )
    return answers
