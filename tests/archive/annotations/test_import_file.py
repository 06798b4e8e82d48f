"""Files of statements: all rows are added or none, and each wrong one is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archive.annotations.assertions import append, human_assertions
from archive.annotations.import_file import SHOWN_ERRORS, read_assertions
from archive.delta.tables import Tables
from model_store.errors import BadRequest
from tests.archive.annotations.statements import APART, CORNERS, KEEP, KEY, NOON, WHO, A, B, at, record, said, standing


@pytest.fixture
def tables(pair: Tables) -> Tables:
    return pair


def refused(tables: Tables, *rows: dict[str, Any]) -> str:
    with pytest.raises(BadRequest) as error:
        said(tables, *rows)
    assert tables.existing("assertions") is None, "all or nothing"
    return str(error.value)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"action": "delete"}, "action 'delete': Input should be 'keep', 'relabel', 'suppress', 'add'"),
    ({"action": "add", "label": None}, "add needs the correct label"),
    ({"action": "add", "label": " "}, "add needs the correct label"),
    ({"action": "add", "rank": 0, "inference_key": KEY}, "add needs the box of an animal"),
    ({"media_sha256": "a"}, "media_sha256 'a': not 64 hex digits"),
    ({"media_sha256": "c" * 64}, "image cccc"),
    ({"media_sha256": "d" * 64}, "or name a frame of the clip"),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path|label\na.jpg|fox\n", "must be separated by commas, semicolons or tabs"),
        ("path:label\na.jpg:fox\n", "must be separated by commas, semicolons or tabs"),
        ("path,label\na.jpg,fox\n", "(?s)missing column 'action'.*to correct labels, keep media_sha256"),
    ],
)
def test_a_file_without_its_columns_has_one_error(tables: Tables, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "edited.csv"
    file.write_text(text)
    with pytest.raises(BadRequest, match=message):
        read_assertions(tables, file, "Ana")


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


def test_spaces_around_a_label_are_not_part_of_it(tables: Tables) -> None:
    assert said(tables, KEEP | {"label": " deer "}) == 1
    assert standing(tables) == [("keep", "deer", 1.0)]


def test_a_file_repeats_what_a_batch_states_already(tables: Tables) -> None:
    row = {name: value for name, value in KEEP.items() if name != "asserted_at"}
    record(tables, KEEP | {"asserted_at": NOON, "batch_id": "b" * 32})
    assert said(tables, row) == 0
