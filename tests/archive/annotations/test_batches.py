"""Batches of human statements: recorded once, withdrawn and repeated as a whole."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import archive.annotations.batches
import archive.retention
from archive.annotations.assertions import human_assertions
from archive.annotations.batches import Action, BatchStatement, Recorded, StatementBatch, record_all, selected_rows
from archive.delta.tables import Tables
from archive.views.query import query
from model_store.errors import BadRequest, Conflict, TableConflict
from tests.archive.annotations.two_images import (
    BOAR,
    EMPTY,
    FOX,
    KEY,
    A,
    B,
    box,
    key_of,
    named,
    put_images,
    record,
    recorded,
    repeat,
    withdraw,
)
from tests.archive.resolve_oracle import BatchModel
from tests.fixtures_local import rows_of

NOON = datetime(2026, 5, 14, 12, tzinfo=UTC)
MOVED = (2.0, 2.0, 15.0, 14.0)
"""Box that overlaps FOX."""
Row = dict[str, Any]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return put_images(Tables(str(tmp_path_factory.mktemp("batches") / "tables")))


@pytest.fixture
def tables(untouched: Tables, tmp_path: Path) -> Tables:
    return Tables(str(shutil.copytree(untouched.url, tmp_path / "tables")))


def drawn(action: str, corners: tuple[float, ...], label: str = "fox", **more: Any) -> BatchStatement:
    row = {"action": action, "media_sha256": A, "label": label, **box(corners)}
    return BatchStatement.model_validate(row | more)


def empty(image: str = A) -> BatchStatement:
    return BatchStatement(action="suppress", media_sha256=image)


def standing(tables: Tables) -> list[tuple[Any, ...]]:
    """Return (image, action, label, left edge, actor) of the statements that stand."""
    rows = human_assertions(tables).to_pylist()
    columns = ("media_sha256", "action", "label", "x1_px", "actor")
    return sorted((tuple(row[c] for c in columns) for row in rows), key=str)


def shown(tables: Tables, *images: str) -> list[tuple[Any, ...]]:
    """Return (label, left edge, said_by) of the detections of images, by default of A."""
    statement = "select media_sha256, label, x1_px, said_by from detections order by 1, 3"
    rows = [tuple(row.values()) for row in query(tables, statement).to_pylist()]
    return [row[1:] for row in rows if row[0] in (images or (A,))]


def test_a_statement_of_a_batch_is_a_row(tables: Tables) -> None:
    before = datetime.now(UTC)
    assert record(tables, key_of(1), [named(reason="tail")], "kim") == Recorded(batch_id=key_of(1), added=1)
    (row,) = rows_of(tables, "assertions")
    assert before <= row.pop("asserted_at") <= datetime.now(UTC)
    assert len(row.pop("assertion_id")) == 64
    filled = {name: value for name, value in row.items() if value is not None}
    expected = {"layer_id": "human", "method": "human", "actor": "kim", "batch_id": key_of(1)}
    about = {"action": "keep", "media_sha256": A, "inference_key": KEY, "rank": 0}
    assert filled == expected | about | box(FOX) | {"label": "fox", "reason": "tail"}


def test_a_batch_that_is_sent_again_adds_nothing_and_has_its_first_answer(tables: Tables) -> None:
    first = record(tables, key_of(1), [named()], "lee")
    mine = record(tables, key_of(2), [named("relabel", label="dog")], "kim")
    assert mine.changed_meanwhile == (A,)
    assert mine.by == ("lee",)
    record(tables, key_of(3), [empty()], "lee")
    assert record(tables, key_of(2), [named("relabel", label="dog")], "kim") == mine
    assert record(tables, key_of(1), [named()], "lee") == first
    undone = withdraw(tables, key_of(4), key_of(2), "kim")
    assert (undone.added, undone.kept, undone.by) == (1, 1, ("lee",))
    record(tables, key_of(5), [named()], "kim")
    assert withdraw(tables, key_of(4), key_of(2), "kim") == undone
    assert len(rows_of(tables, "assertions")) == 5


def test_two_processes_that_record_one_batch_add_it_once(tables: Tables) -> None:
    def write(_: int) -> Recorded:
        return record(Tables(tables.url), key_of(1), [named(), named(rank=1)], "kim")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(write, range(4)))
    assert answers == [Recorded(batch_id=key_of(1), added=2)] * 4
    assert len(rows_of(tables, "assertions")) == 2


INVALID: list[tuple[BatchStatement, str]] = [
    (named(rank=2), "the image has no detection 2 under inference key kkk"),
    (named(image="c" * 64), "image ccc.* is not in the catalogue"),
    (named(inference_key="other"), "the image has no detection 0 under inference key other"),
    (drawn("add", (1.0, 1.0, 42.0, 9.0)), "outside the image, which is 40 x 30 px"),
    (drawn("keep", (9.0, 1.0, 9.0, 9.0)), "x1_px < x2_px"),
    (named("relabel"), "relabel needs the correct label"),
    (drawn("add", FOX, ""), "add needs the correct label"),
    (named(rank=None), "inference_key and rank must be given together"),
    (named(), "about the same thing as statement 1"),
    (empty(), "about the same thing as statement 1"),
    (drawn("add", FOX), "about the same thing as statement 1"),
]


def test_an_invalid_statement_is_named_and_keeps_its_batch_out(tables: Tables) -> None:
    batches = [StatementBatch(key_of(n), "kim", (named(), statement)) for n, (statement, _) in enumerate(INVALID)]
    answers = record_all(tables, [*batches, StatementBatch(key_of(99), "lee", (named(rank=1),))])
    for answer, (_, message) in zip(answers, INVALID, strict=False):
        assert isinstance(answer, BadRequest)
        assert re.search(f"(?s)nothing was recorded.*statement 2: .*{message}", str(answer)), str(answer)
    assert answers[-1] == Recorded(batch_id=key_of(99), added=1)
    assert [row["actor"] for row in rows_of(tables, "assertions")] == ["lee"]


def test_a_batch_needs_a_statement_and_an_undo_a_batch(tables: Tables) -> None:
    with pytest.raises(BadRequest, match="statement 1: missing"):
        record(tables, key_of(1), [], "kim")
    for undo in (withdraw, repeat):
        with pytest.raises(BadRequest, match=f"unknown batch {key_of(9)}"):
            undo(tables, key_of(1), key_of(9), "kim")
    record(tables, key_of(1), [named()], "kim")
    with pytest.raises(BadRequest, match=f"unknown batch {key_of(9)}"):
        withdraw(tables, key_of(2), key_of(9), "kim")


def test_many_batches_share_a_commit(tables: Tables) -> None:
    batches = [StatementBatch(key_of(n), f"person {n}", (named(rank=n % 2),)) for n in range(10)]
    answers = record_all(tables, batches)
    assert [answer.added for answer in answers if isinstance(answer, Recorded)] == [1] * 10
    assert tables.snapshot("assertions").version() == 1
    assert [row[4] for row in standing(tables)] == ["person 9", "person 8"], "in their order"


def test_one_batch_moves_a_box(tables: Tables) -> None:
    record(tables, key_of(1), [named("suppress"), drawn("add", MOVED)], "kim")
    again = (3.0, 2.0, 16.0, 14.0)
    record(tables, key_of(2), [named("suppress"), drawn("suppress", MOVED), drawn("add", again)], "kim")
    assert shown(tables) == [("fox", 3.0, "human"), ("boar", 20.0, None)]
    withdraw(tables, key_of(3), key_of(2), "kim")
    assert shown(tables) == [("fox", 2.0, "human"), ("boar", 20.0, None)]


def test_a_later_batch_replaces_an_earlier_one_with_any_clock(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(NOON - timedelta(days=n // 2) for n in range(100))  # it stops and is set back
    monkeypatch.setattr(archive.annotations.batches, "now", lambda: next(times))
    for n, label in enumerate(("dog", "cat", "hare"), 1):
        record(tables, key_of(n), [drawn("keep", FOX, label)], "kim")
        assert [row[2] for row in standing(tables)] == [label]
    record(tables, key_of(8), [empty()], "kim")
    assert standing(tables) == [(A, "suppress", None, None, "kim")]
    withdraw(tables, key_of(9), key_of(8), "kim")
    assert [row[2] for row in standing(tables)] == ["hare"]
    withdraw(tables, key_of(10), key_of(3), "kim")
    assert [row[2] for row in standing(tables)] == ["cat"]


def test_an_undo_leaves_what_others_stated_in_between(tables: Tables) -> None:
    record(tables, key_of(1), [named("relabel", label="dog"), named(rank=1)], "kim")
    record(tables, key_of(2), [named("relabel", label="cat")], "lee")
    undone = withdraw(tables, key_of(3), key_of(1), "kim")
    assert undone == Recorded(batch_id=key_of(3), added=2, kept=1, by=("lee",))
    assert standing(tables) == [(A, "relabel", "cat", 1.0, "lee")]
    redone = repeat(tables, key_of(4), key_of(1), "kim")
    assert redone == Recorded(batch_id=key_of(4), added=2, changed_meanwhile=(A,), by=("lee",))
    assert [row[2] for row in standing(tables)] == ["boar", "dog"]


def test_an_undo_is_undone_like_anything_else(tables: Tables) -> None:
    record(tables, key_of(1), [named("relabel", label="dog")], "kim")
    withdraw(tables, key_of(2), key_of(1), "kim")
    assert withdraw(tables, key_of(3), key_of(1), "kim").added == 0, "it is withdrawn already"
    withdraw(tables, key_of(4), key_of(2), "kim")
    assert standing(tables) == [(A, "relabel", "dog", 1.0, "kim")]
    withdraw(tables, key_of(5), key_of(4), "lee")
    assert standing(tables) == []
    repeat(tables, key_of(6), key_of(5), "lee")
    assert standing(tables) == [(A, "relabel", "dog", 1.0, "lee")]


def test_what_a_person_had_not_seen_is_reported_and_never_refused(tables: Tables) -> None:
    record(tables, key_of(1), [named("relabel", label="dog")], "lee")
    (first,) = human_assertions(tables)["assertion_id"].to_pylist()
    seen = record(tables, key_of(2), [named(seen=first)], "kim")
    assert (seen.changed_meanwhile, seen.by) == ((), ())
    own = record(tables, key_of(3), [named("relabel", label="cat", seen=first)], "kim")
    assert own.changed_meanwhile == (), "it was replaced by the same person"
    assert record(tables, key_of(4), [empty()], "lee").by == ("kim",)
    late = record(tables, key_of(5), [named(), named(image=B)], "kim")
    assert (late.changed_meanwhile, late.by) == ((A,), ("lee",))
    withdraw(tables, key_of(6), key_of(5), "lee")
    gone = human_assertions(tables, history=True)["assertion_id"].to_pylist()[-2]
    assert record(tables, key_of(7), [named(image=B, seen=gone)], "kim").changed_meanwhile == (B,)


def test_of_a_whole_image_the_newest_statement_must_be_seen(tables: Tables) -> None:
    record(tables, key_of(1), [named()], "lee")
    record(tables, key_of(2), [named(rank=1)], "ana")
    first, newest = human_assertions(tables)["assertion_id"].to_pylist()
    for n, (seen, by) in enumerate(((first, ("ana",)), (newest, ()), (None, ("ana",)))):
        statement = BatchStatement(action="suppress", media_sha256=A, seen=seen)
        assert record(tables, key_of(10 + n), [statement], "kim").by == by
        withdraw(tables, key_of(20 + n), key_of(10 + n), "kim")


def test_statements_about_pruned_results_are_recorded_with_a_conflict(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = tables.snapshot("results")
    protected: set[str] = set()
    batches = [StatementBatch(key_of(1), "kim", (named(),)), StatementBatch(key_of(2), "lee", (drawn("add", BOAR),))]
    assert all(isinstance(one, Recorded) for one in record_all(tables, batches, protected))
    assert protected == {KEY}
    with pytest.raises(Exception, match="(?i)transaction"):
        archive.retention._delete(planned, [KEY])
    version = tables.snapshot("results").version()
    record_all(tables, [StatementBatch(key_of(3), "kim", (named(),))], protected)
    assert tables.snapshot("results").version() == version, "one commit for each key is enough"
    monkeypatch.setattr("archive.annotations.assertions.pruned_keys", lambda *_: [KEY])
    batches = [StatementBatch(key_of(4), "kim", (named(),)), StatementBatch(key_of(5), "lee", (drawn("add", BOAR),))]
    answers = record_all(tables, batches)
    assert isinstance(answers[0], Conflict)
    assert isinstance(answers[1], Recorded)
    assert len(rows_of(tables, "assertions")) == 5


def digests(*shas: str) -> pa.Table:
    return pa.table({"media_sha256": pa.array(shas, pa.string())})


def record_selection(
    tables: Tables,
    batch_id: str,
    media: pa.Table,
    action: Action,
    label: str | None,
    actor: str,
    view: str = "production",
) -> Recorded:
    rows = selected_rows(tables, media, action, label, view)
    return recorded(tables, StatementBatch(batch_id, actor, selected=rows, replaces=True))


def test_a_large_selection_has_the_same_rows(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> list[Row]:
        selected = selected_rows(tables, digests(A, EMPTY), "keep", None, "production")
        return sorted(selected.to_pylist(), key=str)

    small = rows()
    assert [row["action"] for row in small] == ["keep", "keep", "suppress"]
    monkeypatch.setattr(archive.annotations.batches, "MAX_LOADED", 0)
    assert rows() == small


def test_a_selection_confirms_what_is_shown(tables: Tables) -> None:
    record(tables, key_of(1), [named("relabel", label="dog"), drawn("add", (1.0, 18.0, 9.0, 26.0))], "lee")
    answer = record_selection(tables, key_of(2), digests(A), "keep", None, "kim")
    assert answer == Recorded(batch_id=key_of(2), added=1), "the others are decided by people"
    assert (A, "keep", "boar", 20.0, "kim") in standing(tables)
    answer = record_selection(tables, key_of(3), digests(A, B), "relabel", "dog", "kim")
    assert answer.added == 4
    assert [label for label, *_ in shown(tables, A, B)] == ["dog"] * 5
    assert record_selection(tables, key_of(4), digests(A), "suppress", None, "kim").added == 1
    assert (A, "suppress", None, None, "kim") in standing(tables)
    for n in (4, 3, 2, 1):
        withdraw(tables, key_of(10 + n), key_of(n), "kim")
    assert shown(tables, A, B) == [("fox", 1.0, None), ("boar", 20.0, None)] * 2


def test_a_relabel_of_one_label_leaves_the_other_boxes(tables: Tables) -> None:
    rows = selected_rows(tables, digests(A, B), "relabel", "dog", "production", of_label="fox")
    assert recorded(tables, StatementBatch(key_of(1), "kim", selected=rows)).added == 2
    assert [label for label, *_ in shown(tables, A, B)] == ["dog", "boar"] * 2
    with pytest.raises(BadRequest, match="of_label 'fox' applies to relabel only"):
        selected_rows(tables, digests(A), "keep", None, "production", of_label="fox")


def test_a_selection_leaves_what_others_decided_before_its_commit(tables: Tables) -> None:
    rows = selected_rows(tables, digests(A, B, EMPTY), "keep", None, "production")
    record(tables, key_of(1), [named("suppress")], "lee")
    record(tables, key_of(2), [named("relabel", label="dog", image=B)], "kim")
    record(tables, key_of(3), [empty(EMPTY)], "ana")
    withdraw(tables, key_of(4), key_of(3), "ana")
    record(tables, key_of(5), [BatchStatement(action="flag", media_sha256=B)], "ana")
    batch = StatementBatch(key_of(6), "kim", selected=rows)
    answer = recorded(tables, batch)
    assert answer == Recorded(batch_id=key_of(6), added=3, left=1, by=("lee",))
    assert [row[4] for row in standing(tables) if row[0] == A] == ["lee"]
    record(tables, key_of(7), [named(image=B)], "ana")
    assert recorded(tables, batch) == answer, "sent again, after ana decided another of its images"
    all_of_them = StatementBatch(key_of(8), "kim", selected=rows, replaces=True)
    assert recorded(tables, all_of_them) == Recorded(batch_id=key_of(8), added=5)


def test_a_selection_confirms_empty_images_once(tables: Tables) -> None:
    for n, added in enumerate((1, 0)):
        answer = record_selection(tables, key_of(n), digests(EMPTY), "keep", None, "kim")
        assert answer.added == added
    assert standing(tables) == [(EMPTY, "suppress", None, None, "kim")]


def test_a_selection_needs_a_label_for_relabel_only(tables: Tables) -> None:
    for action, label in (("relabel", None), ("keep", "fox"), ("suppress", "fox")):
        with pytest.raises(BadRequest, match=f"{action} needs"):
            record_selection(tables, key_of(1), digests(A), action, label, "kim")  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="nothing is published as 'none'"):
        record_selection(tables, key_of(1), digests(A), "keep", None, "kim", view="none")


def test_a_rejected_commit_adds_no_row(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tables, key_of(1), [named()], "kim")

    def rejects(*_: Any, **__: Any) -> None:
        raise TableConflict("rejected")

    monkeypatch.setattr("archive.delta.tables._commit", rejects)
    with pytest.raises(TableConflict):
        record(tables, key_of(2), [named()], "kim")
    assert len(rows_of(tables, "assertions")) == 1


def random_statements(chance: random.Random) -> list[BatchStatement]:
    """Return one to three statements that can be in one batch."""
    image = chance.choice((A, B))
    label = chance.choice(("fox", "dog", "cat"))
    of_image = {"media_sha256": image}
    choices: list[Callable[[], list[BatchStatement]]] = [
        lambda: [named(chance.choice(("keep", "suppress")), chance.randrange(2), image)],
        lambda: [named("relabel", rank, image, label=label) for rank in (0, 1)],
        lambda: [empty(image)],
        lambda: [drawn(chance.choice(("keep", "add", "suppress")), MOVED, label, **of_image)],
        lambda: [named("suppress", 0, image), drawn("add", MOVED, label, **of_image), empty(A if image == B else B)],
        lambda: [named("keep", 1, A), named("keep", 1, B)],
    ]
    return chance.choice(choices)()


def test_what_stands_is_what_the_rules_say(tables: Tables) -> None:
    """Two people state, withdraw and repeat at random; a model without SQL does the same."""
    chance, model = random.Random(2), BatchModel(NOON)
    boxes = {0: box(FOX) | {"label": "fox"}, 1: box(BOAR) | {"label": "boar"}}
    for step in range(10):
        actor, batch_id = chance.choice(("kim", "lee")), key_of(step)
        earlier = [*model.batches, *(name for name, rows in model.undone.items() if rows)]
        if not earlier or chance.random() < 0.5:
            statements = random_statements(chance)
            answer = record(tables, batch_id, statements, actor)
            given = [s.model_dump(exclude_none=True) for s in statements]
            rows = [boxes.get(row.get("rank", -1), {}) | row for row in given]
            model.record(batch_id, rows, actor)
            assert answer.added == len(rows)
        else:
            undo, of_batch = chance.choice(("withdraw", "repeat")), chance.choice(earlier)
            {"withdraw": withdraw, "repeat": repeat}[undo](tables, batch_id, of_batch, actor)
            {"withdraw": model.withdraw, "repeat": model.repeat}[undo](batch_id, of_batch, actor)
        assert standing(tables) == model.standing, step
