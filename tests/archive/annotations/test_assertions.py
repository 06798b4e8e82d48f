"""Human statements: append-only, stored once, the newest one valid."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError

import archive.retention
from archive.annotations.assertions import HUMAN, append, assertion_id, human_assertions
from archive.annotations.import_file import SHOWN_ERRORS, read_assertions
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, MEDIA
from model_store.errors import BadRequest, Conflict
from tests.fixtures_local import put_results, result_rows, rows_of

NOON = datetime(2026, 5, 14, 12, tzinfo=UTC)
A, B = "a" * 64, "b" * 64
KEY = "k" * 64
CORNERS = {"x1_px": 1.0, "y1_px": 2.0, "x2_px": 11.0, "y2_px": 12.0}
OTHER = CORNERS | {"x1_px": 5.0}
WHO = {"actor": "kim", "asserted_at": "2026-05-14T12:00:00Z"}
KEEP = {"media_sha256": A, "action": "keep", "label": "deer", **CORNERS, **WHO}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Return tables with two catalogued images; KEY has two detections of the first."""
    tables = Tables(str(tmp_path_factory.mktemp("untouched") / "tables"))
    media = [
        {"media_sha256": A, "source_root": "/x", "path": "a.jpg", "width_px": 40, "height_px": 30},
        {"media_sha256": B, "source_root": "/x", "path": "b.jpg", "width_px": None},
        {"media_sha256": B, "source_root": "/y", "path": "a.jpg"},
        {"media_sha256": B, "source_root": "/z", "path": "b.jpg"},
    ]
    rows = pa.Table.from_pylist(media, schema=MEDIA)
    tables.append("media", rows, "test", lambda _, wanted: wanted)
    seen = [{"rank": 0, "label": "fox", "score": 0.9, **CORNERS}, {"rank": 1, "label": "boar", **OTHER}]
    put_results(tables, result_rows([A], KEY, detections=seen))
    return tables


@pytest.fixture
def tables(untouched: Tables, tmp_path: Path) -> Tables:
    """Return a copy of them, for this test alone."""
    return Tables(str(shutil.copytree(untouched.url, tmp_path / "tables")))


APART = dict(zip(CORNERS, (20.0, 20.0, 30.0, 30.0), strict=True))


def said(tables: Tables, *rows: dict[str, Any], kind: str = "jsonl") -> int:
    """Import rows from a file; return the number added."""
    file = Path(tables.url).parent / f"said.{kind}"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return append(tables, read_assertions(tables, file).rows)


def standing(tables: Tables) -> list[tuple[Any, ...]]:
    columns = ("action", "label", "x1_px")
    return [tuple(row[c] for c in columns) for row in human_assertions(tables).to_pylist()]


def refused(tables: Tables, *rows: dict[str, Any]) -> str:
    with pytest.raises(BadRequest) as error:
        said(tables, *rows)
    assert tables.existing("assertions") is None, "all or nothing"
    return str(error.value)


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


def test_a_layer_that_is_run_again_adds_nothing_whenever_that_is(tables: Tables) -> None:
    def layer(when: datetime, layer_id: str = "l" * 64) -> pa.Table:
        row = {"layer_id": layer_id, "method": "machine", "action": "suppress", "media_sha256": A}
        return pa.Table.from_pylist([row | {"asserted_at": when, "rank": 0}], schema=ASSERTIONS)

    assert append(tables, layer(NOON)) == 1
    assert append(tables, layer(NOON + timedelta(days=7))) == 0
    assert append(tables, layer(NOON, "m" * 64)) == 1
    assert human_assertions(tables, history=True).num_rows == 0, "a layer is nobody"


def test_a_later_word_takes_the_place_of_an_earlier_one_and_nothing_is_lost(tables: Tables) -> None:
    later = {"asserted_at": "2026-05-14T12:00:01Z"}
    said(tables, KEEP | later | {"action": "suppress"}, KEEP, KEEP | APART)
    assert standing(tables) == [("keep", "deer", 20.0), ("suppress", "deer", 1.0)]
    assert human_assertions(tables, history=True).num_rows == 3
    said(tables, KEEP | {"asserted_at": "2026-05-14T14:00:02+02:00"})
    assert standing(tables) == [("keep", "deer", 20.0), ("keep", "deer", 1.0)]


def at(minute: int) -> dict[str, str]:
    return {"asserted_at": f"2026-05-14T12:{minute:02}:00Z"}


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


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"action": "delete"}, "action 'delete': Input should be 'keep', 'relabel', 'suppress', 'add'"),
    ({"action": "add", "label": None}, "add needs the correct label"),
    ({"action": "add", "rank": 0, "inference_key": KEY}, "add needs the box of an animal"),
    ({"media_sha256": "a"}, "media_sha256 'a': not 64 hex digits"),
    ({"media_sha256": "c" * 64}, "image cccc"),
    ({"path": "a.jpg"}, "name the image either by media_sha256 or by path"),
    ({"media_sha256": None, "path": "none.jpg"}, "image none.jpg is not in the catalogue"),
    ({"media_sha256": None, "path": "a.jpg"}, "several images have the path a.jpg: add source_root"),
    ({"media_sha256": None, "path": "a.jpg", "source_root": "/z"}, "image a.jpg is not in the catalogue"),
    ({"x1_px": None}, "a box needs all of x1_px"),
    ({"x1_px": 11.0}, "a box needs x1_px < x2_px"),
    ({"x1_px": "left"}, "x1_px 'left': Input should be a valid number"),
    ({"x2_px": 41.5}, "the box lies outside the image, which is 40 x 30 px as displayed"),
    ({"y1_px": -1.5}, "outside the image"),
    ({"x1_px": "nan"}, "x1_px 'nan': Input should be a finite number"),
    ({"label": None}, "keep needs the correct label"),
    ({"label": None, "action": "relabel"}, "relabel needs the correct label"),
    (dict.fromkeys(CORNERS), "keep needs a box, or inference_key and rank"),
    (dict.fromkeys(CORNERS) | {"action": "suppress"}, "remove the label"),
    ({"rank": 0}, "inference_key and rank must be given together"),
    ({"rank": 2, "inference_key": KEY}, "the image has no detection 2 under inference key kkk"),
    ({"rank": 0, "inference_key": "other"}, "the image has no detection 0 under inference key other"),
    ({"asserted_at": "2026-05-14T12:00:00"}, "add the offset from UTC"),
    ({"asserted_at": "1778760000"}, "asserted_at '1778760000': Invalid isoformat"),
    ({"asserted_at": 1778760000}, "asserted_at 1778760000: Invalid isoformat"),
    ({"actor": None}, "actor: missing; add the column, or give --by"),
]


def test_every_wrong_row_is_named(tables: Tables) -> None:
    rows = [{k: v for k, v in (KEEP | change).items() if v is not None} for change, _ in WRONG]
    lines = refused(tables, *rows).splitlines()
    for number, (line, (_, message)) in enumerate(zip(lines[1:], WRONG, strict=False), 1):
        assert line.startswith(f"row {number}: "), line
        assert message in line
    words = refused(tables, KEEP | {"confidence": 1})
    assert "unknown column 'confidence'; nothing was added\ncolumns: action, media_sha256, path" in words


def test_one_wrong_row_keeps_all_out_and_every_wrong_row_is_named(tables: Tables) -> None:
    away = KEEP | {"media_sha256": "c" * 64}
    words = refused(tables, KEEP, KEEP | {"action": "x"}, KEEP, away)
    assert words.splitlines()[0].endswith("nothing was added")
    assert [line.split(":")[0] for line in words.splitlines()[1:3]] == ["row 2", "row 4"]
    words = refused(tables, *[away] * (SHOWN_ERRORS + 3))
    assert [line.split(":")[0] for line in words.splitlines()[SHOWN_ERRORS + 1 :]] == [
        "and 3 more",
        "columns",
        "example",
        "         keep,north/IMG_0042.JPG,deer,812,340,1404,911,kim,2026-05-14T09",
    ]


def test_a_box_at_the_edge_may_be_rounded(tables: Tables) -> None:
    assert said(tables, KEEP | {"x1_px": -1.0, "x2_px": 41.0, "y2_px": 31.0}) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", b"\xff\xfe", "cannot read .*: not UTF-8"),
        ("a.json", b"{", "cannot read"),
        ("a.json", b"{}", "it must be a list of objects"),
        ("a.json", b"[1]", "row 1: it must be an object"),
        ("a.jsonl", b"{}\n[", "cannot read"),
        ("a.csv", b"action,actor\nkeep,kim,more\n", "row 1: it has more fields than the header"),
        ("a.xlsx", b"", "its name must end in .csv, .parquet, .json or .jsonl"),
        ("a.json", b"[" * 100_000, "cannot read"),
    ],
)
def test_what_is_no_such_file_is_refused(name: str, text: bytes, message: str, tables: Tables, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(BadRequest, match=message):
        read_assertions(tables, tmp_path / name)
    with pytest.raises(BadRequest, match="cannot read"):
        read_assertions(tables, tmp_path / "none.csv")


def test_every_kind_of_file_says_the_same(tables: Tables, tmp_path: Path) -> None:
    empty = {"path": "b.jpg", "source_root": "/x", "action": "suppress", "media_sha256": ""}
    rows = [{name: str(value) for name, value in KEEP.items()}, empty | WHO]
    columns = [*KEEP, "path", "source_root"]
    lines = [",".join(columns), *(",".join(row.get(c, "") for c in columns) for row in rows)]
    (tmp_path / "a.csv").write_text("\ufeff" + "\n".join(lines) + "\n")
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    read = [read_assertions(tables, tmp_path / f"a.{kind}").rows for kind in ("csv", "json", "jsonl")]
    assert read[0].equals(read[1])
    assert read[1].equals(read[2])
    assert [append(tables, one) for one in read] == [2, 0, 0]


@pytest.mark.parametrize("separator", [";", ","])
def test_decimal_commas_are_read_unless_commas_separate_columns(tables: Tables, tmp_path: Path, separator: str) -> None:
    row = {name: str(value) for name, value in KEEP.items()} | {"x1_px": '"1,5"'}
    file = tmp_path / "a.csv"
    file.write_text("\n".join(map(separator.join, (row, row.values()))))
    if separator == ",":
        with pytest.raises(BadRequest, match="row 1: x1_px '1,5': Input should be a valid number"):
            read_assertions(tables, file)
    else:
        assert read_assertions(tables, file).rows["x1_px"].to_pylist() == [1.5]


LINE_ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"


@pytest.mark.parametrize("line", ["\n", "\r\n", "\r"])
def test_only_csv_s_own_line_ends_begin_a_row(tables: Tables, tmp_path: Path, line: str) -> None:
    """Unquoted fields may contain Unicode line ends, quoted ones all; a later row has the correct number."""
    reasons = (f"seen{LINE_ENDS}twice", f"seen{LINE_ENDS}\n\r\n\rtwice")
    row = {name: str(value) for name, value in KEEP.items()}
    rows = [[*row, "reason"], [*row.values(), reasons[0]], [*row.values(), f'"{reasons[1]}"']]
    file = tmp_path / "a.csv"
    file.write_bytes(line.join(",".join(fields) for fields in rows).encode())
    assert read_assertions(tables, file).rows["reason"].to_pylist() == list(reasons)
    rows.append([*(row | {"action": "eat"}).values(), ""])
    file.write_bytes(line.join(",".join(fields) for fields in rows).encode())
    with pytest.raises(BadRequest, match="\nrow 3: action 'eat'"):
        read_assertions(tables, file)


def test_rows_that_do_not_say_who_and_when_take_what_is_given(tables: Tables, tmp_path: Path) -> None:
    row = {name: value for name, value in KEEP.items() if name not in WHO}
    (tmp_path / "a.json").write_text(json.dumps([row, KEEP]))
    read = read_assertions(tables, tmp_path / "a.json", "lee", "2026-05-15T12:00:00Z").rows
    assert read["actor"].to_pylist() == ["lee", "kim"]
    assert read["asserted_at"].to_pylist() == [NOON + timedelta(days=1), NOON]


def test_a_file_without_times_is_of_now_and_adds_nothing_again(tables: Tables) -> None:
    row = {name: value for name, value in KEEP.items() if name != "asserted_at"}
    before = datetime.now(UTC)
    assert (said(tables, row), said(tables, row)) == (1, 0)
    (moment,) = human_assertions(tables)["asserted_at"].to_pylist()
    assert before <= moment <= datetime.now(UTC)
    assert said(tables, row | {"label": "fox"}) == 1
    assert said(tables, row) == 1, "it did not stand"
    assert standing(tables) == [("keep", "deer", 1.0)]


def test_a_withdrawal_without_effect_is_named_and_not_added(tables: Tables, tmp_path: Path) -> None:
    def withdraw(*rows: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
        file = tmp_path / "w.json"
        file.write_text(json.dumps(list(rows)))
        read = read_assertions(tables, file)
        return append(tables, read.rows), read.idle

    box = {"media_sha256": A, "action": "withdraw", **CORNERS, **WHO, **at(5)}
    image = {"media_sha256": A, "action": "withdraw", **WHO, **at(6)}
    assert withdraw(box) == withdraw(image) == withdraw(box, image) == (0, (A,))
    said(tables, KEEP, KEEP | {"media_sha256": B})
    assert withdraw(box | APART) == (0, (A,))
    assert withdraw(box | {"asserted_at": "2026-05-14T11:00:00Z"}) == (0, (A,))
    assert withdraw(box, box | {"media_sha256": B} | APART) == (1, (B,))
    assert withdraw(box | at(7)) == (0, (A,))
    assert [row["media_sha256"] for row in human_assertions(tables).to_pylist()] == [B]
    assert withdraw(KEEP | at(8), image | at(9)) == (2, ())


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


def record(tables: Tables, *rows: dict[str, Any]) -> list[str]:
    """Append rows of people as they are; return their ids."""
    full = [{"layer_id": HUMAN, "method": HUMAN, "actor": "kim", **row} for row in rows]
    append(tables, pa.Table.from_pylist(full, schema=ASSERTIONS))
    return [assertion_id(row) for row in pa.Table.from_pylist(full, schema=ASSERTIONS).to_pylist()]


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


def test_a_file_repeats_what_a_batch_states_already(tables: Tables) -> None:
    row = {name: value for name, value in KEEP.items() if name != "asserted_at"}
    record(tables, KEEP | {"asserted_at": NOON, "batch_id": "b" * 32})
    assert said(tables, row) == 0
