"""Human statements: append-only, stored once, the newest one valid."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError

import archive.retention
from archive.annotations.assertions import HUMAN, append, assertion_id, human_assertions
from archive.annotations.import_file import read_assertions
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS
from model_store.errors import Conflict
from tests.archive.annotations.statements import APART, CORNERS, KEEP, KEY, NOON, WHO, A, B, at, record, said, standing
from tests.fixtures_local import rows_of


@pytest.fixture
def tables(pair: Tables) -> Tables:
    return pair


def test_nothing_said_is_nothing_added(tables: Tables) -> None:
    assert append(tables, ASSERTIONS.empty_table()) == 0
    assert said(tables) == 0
    assert human_assertions(tables).num_rows == 0
    assert tables.existing("assertions") is None


def test_a_statement_is_a_row(tables: Tables) -> None:
    assert said(tables, KEEP | {"reason": "antlers"}) == 1
    (row,) = rows_of(tables, "assertions")
    assert len(row.pop("assertion_id")) == 64
    facts = {"layer_id": HUMAN, "method": HUMAN, "reason": "antlers", "asserted_at": NOON}
    filled = {name: value for name, value in row.items() if value is not None}
    assert filled == KEEP | facts


def test_the_same_file_again_adds_nothing(tables: Tables) -> None:
    rows = [KEEP, KEEP | {"label": "fox"}, KEEP]
    assert said(tables, *rows) == 2, "a row that is in the file twice is one"
    assert said(tables, *rows) == 0
    assert said(tables, *rows, KEEP | {"actor": "lee"}) == 1
    assert len(rows_of(tables, "assertions")) == 3


def test_an_id_is_the_digest_of_the_row() -> None:
    row = dict.fromkeys(ASSERTIONS.names) | {"method": HUMAN, "asserted_at": NOON, "x1_px": 0.5}
    parts = ["null"] * 7 + ["0.5"] + ["null"] * 8 + ['"2026-05-14T12:00:00.000000+00:00"']
    parts[ASSERTIONS.names.index("method") - 1] = '"human"'
    assert assertion_id(row) == hashlib.sha256(f"[{', '.join(parts)}]".encode()).hexdigest()
    for name in ASSERTIONS.names[1:]:
        value = NOON + timedelta(hours=1) if name == "asserted_at" else "other"
        assert assertion_id(row | {name: value}) != assertion_id(row), name
    assert assertion_id(row | {"assertion_id": "x"}) == assertion_id(row)


def test_the_time_of_a_layer_is_not_part_of_its_ids_and_it_is_nobody(tables: Tables) -> None:
    row = dict.fromkeys(ASSERTIONS.names) | {"layer_id": "l" * 64, "method": "machine", "asserted_at": NOON}
    assert assertion_id(row | {"asserted_at": NOON + timedelta(days=7)}) == assertion_id(row)
    assert assertion_id(row | {"layer_id": "m" * 64}) != assertion_id(row)
    tables.append("assertions", pa.Table.from_pylist([row], schema=ASSERTIONS), "test", lambda _, wanted: wanted)
    assert human_assertions(tables, history=True).num_rows == 0


def test_a_later_word_takes_the_place_of_an_earlier_one_and_nothing_is_lost(tables: Tables) -> None:
    later = {"asserted_at": "2026-05-14T12:00:01Z"}
    said(tables, KEEP | later | {"action": "suppress"}, KEEP, KEEP | APART)
    assert standing(tables) == [("keep", "deer", 20.0), ("suppress", "deer", 1.0)]
    assert human_assertions(tables, history=True).num_rows == 3
    said(tables, KEEP | {"asserted_at": "2026-05-14T14:00:02+02:00"})
    assert standing(tables) == [("keep", "deer", 20.0), ("keep", "deer", 1.0)]


DRAWN = dict(zip(CORNERS, (1.0, 2.0, 10.0, 10.0), strict=True))
"""Box that overlaps that of detection 0."""
NAMED = {"media_sha256": A, "inference_key": KEY, **{name: KEEP[name] for name in WHO}}


@pytest.mark.parametrize(("first", "then"), [("keep", "suppress"), ("suppress", "relabel")])
def test_a_later_word_that_is_drawn_replaces_one_that_names_the_detection(
    tables: Tables, first: str, then: str
) -> None:
    named = NAMED | {"rank": 0, "action": first, "label": "deer"}
    drawn = KEEP | DRAWN | {"action": then, "label": "fox"}
    said(tables, named | at(1), drawn | at(2))
    assert standing(tables) == [(then, "fox", 1.0)]
    said(tables, named | at(3))
    assert standing(tables) == [(first, "deer", 1.0)]


def test_what_was_replaced_does_not_come_back_with_a_third_word(tables: Tables) -> None:
    """Boxes overlap their predecessor, but the last does not overlap the first."""
    boxes = [dict(zip(CORNERS, (left, 1.0, left + 12, 13.0), strict=True)) for left in (0, 4, 8)]
    said(tables, *(KEEP | box | at(minute) for minute, box in enumerate(boxes)))
    assert standing(tables) == [("keep", "deer", 8.0)]


def test_two_boxes_of_one_model_or_of_one_moment_are_two_things(tables: Tables) -> None:
    """Keep one of two detections of an animal, and suppress the other."""
    kept, other = NAMED | {"rank": 0, "action": "keep"}, NAMED | {"rank": 1, "action": "suppress"}
    said(tables, kept | at(1) | DRAWN, other | at(2) | DRAWN)
    assert len(standing(tables)) == 2
    said(tables, kept | at(3) | DRAWN)
    assert [(action, label) for action, label, _ in standing(tables)] == [("suppress", "boar"), ("keep", "fox")]
    moment = {"media_sha256": B} | at(5)
    said(tables, KEEP | moment, KEEP | moment | DRAWN | {"action": "suppress"})
    assert human_assertions(tables, media="b").num_rows == 2


def test_a_detection_that_was_looked_at_brings_its_box_and_label(tables: Tables) -> None:
    looked = {"path": "a.jpg", "source_root": "/x", "inference_key": KEY, "rank": 1, **WHO}
    assert said(tables, looked | {"action": "keep"}, looked | {"action": "relabel", "label": "pig"}) == 2
    rows = sorted(rows_of(tables, "assertions"), key=lambda row: row["action"])
    assert [(row["label"], row["x1_px"], row["rank"]) for row in rows] == [("boar", 5.0, 1), ("pig", 5.0, 1)]
    assert said(tables, looked | {"action": "keep"} | CORNERS) == 1, "a better box stays"
    assert ("keep", "boar", 1.0) in standing(tables)


def test_lists_are_by_image_and_by_label(tables: Tables) -> None:
    said(tables, KEEP, KEEP | {"media_sha256": B, "label": "fox"})
    assert human_assertions(tables, media="b")["path"].to_pylist() == ["a.jpg"]
    assert human_assertions(tables, label="deer")["media_sha256"].to_pylist() == [A]
    assert human_assertions(tables, media="b", label="deer").num_rows == 0


def test_a_tie_in_time_is_settled_the_same_way_each_time(tables: Tables) -> None:
    said(tables, KEEP, KEEP | {"label": "fox"}, KEEP | {"label": "boar"})
    rows = {row["assertion_id"]: row["label"] for row in rows_of(tables, "assertions")}
    assert standing(tables) == [("keep", rows[max(rows)], 1.0)]


LOOKED_AT = {"media_sha256": A, "action": "keep", "inference_key": KEY, "rank": 0, **WHO}


def test_a_prune_that_was_planned_before_a_statement_is_refused_by_it(tables: Tables) -> None:
    planned = tables.snapshot("results")
    assert said(tables, LOOKED_AT) == 1
    with pytest.raises(CommitFailedError):
        archive.retention._delete(planned, [KEY])


def test_statements_without_a_detection_hold_nothing(tables: Tables) -> None:
    before = tables.snapshot("results").version()
    assert said(tables, KEEP) == 1
    assert tables.snapshot("results").version() == before


def test_a_statement_that_loses_to_a_prune_is_recorded_and_told_so(tables: Tables) -> None:
    file = Path(tables.url).parent / "said.jsonl"
    file.write_text(json.dumps(LOOKED_AT))
    rows = read_assertions(tables, file).rows
    tables.snapshot("results").delete(f"inference_key = '{KEY}'")
    with pytest.raises(Conflict, match="pruned concurrently"):
        append(tables, rows)
    assert standing(tables) == [("keep", "fox", 1.0)]
    assert append(tables, rows) == 0


def test_a_withdrawn_statement_counts_as_never_made(tables: Tables) -> None:
    """The statement before it stands again; that of a colleague stays, and so does one about another box."""
    by_kim, by_lee, again = (
        {"media_sha256": A, "action": "keep", "label": label, **CORNERS}
        | {"actor": actor, "asserted_at": NOON + timedelta(minutes=minute)}
        for minute, (label, actor) in enumerate([("deer", "kim"), ("fox", "lee"), ("boar", "kim")])
    )
    first, _, third = record(tables, by_kim, by_lee, again)
    record(tables, by_kim | APART | {"label": "hare"})
    late = {"media_sha256": A, "action": "withdraw", "asserted_at": NOON + timedelta(hours=1)}
    record(tables, late | CORNERS | {"withdraws": first})
    assert standing(tables) == [("keep", "hare", 20.0), ("keep", "boar", 1.0)]
    record(tables, late | CORNERS | {"withdraws": third})
    assert standing(tables) == [("keep", "hare", 20.0), ("keep", "fox", 1.0)]
    rows = human_assertions(tables, history=True).to_pylist()
    assert [row["standing"] for row in rows] == [False, True, True, False, False, False]
    assert {row["withdraws"] for row in rows} == {None, first, third}


def test_a_table_without_the_newer_columns_is_read_and_extended(tables: Tables) -> None:
    older = pa.schema([f for f in ASSERTIONS if f.name not in ("batch_id", "withdraws", "group_id")])
    row = {"layer_id": HUMAN, "method": HUMAN, **KEEP, "asserted_at": NOON}
    row["assertion_id"] = assertion_id(dict.fromkeys(ASSERTIONS.names) | row)
    write_deltalake(f"{tables.url}/assertions", pa.Table.from_pylist([row], schema=older))
    assert standing(tables) == [("keep", "deer", 1.0)]
    assert said(tables, KEEP) == 0, "its id is that of a row without the columns"
    target = {"action": "withdraw", "withdraws": row["assertion_id"], "batch_id": "b" * 32}
    record(tables, {"media_sha256": A, "asserted_at": NOON, **CORNERS, **target})
    assert standing(tables) == []
    assert human_assertions(tables, history=True)["batch_id"].to_pylist().count(None) == 1
