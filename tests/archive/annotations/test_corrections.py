"""Corrected labels in an exported table, as saved by spreadsheets."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from archive.annotations.assertions import append
from archive.annotations.import_file import Read, read_assertions, remarks
from archive.delta.tables import Tables
from archive.views.exports import export
from archive.views.query import query
from archive.views.views import View, Views
from model_store.errors import BadRequest
from tests.fixtures_local import put_results, put_rows, result_rows, rows_of

A, B = "a" * 64, "b" * 64
KEY, NEXT = "1" * 64, "2" * 64
Row = dict[str, Any]
ADDED = {"x1_px": 5.1, "y1_px": 5.0, "x2_px": 9.0, "y2_px": 9.0}


def box(rank: int, label: str, left: float) -> Row:
    corners = {"x1_px": left, "y1_px": 1.0, "x2_px": left + 10.1, "y2_px": 12.0}
    return {"rank": rank, "label": label, "class_id": 0, "score": 0.9, **corners}


def show(tables: Tables, key: str) -> None:
    names = {"model_name": "m", "model_version": "1", "weights_sha256": "w"}
    view = View.model_validate({"inference_key": key, **names})
    views = Views(tables.url)
    views.publish(view, after=len(views.history()))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Return two images: a fox and a boar, and a fox; the next model moves all boxes by a pixel."""
    tables = Tables(str(tmp_path_factory.mktemp("untouched") / "tables"))
    media = [
        {"media_sha256": sha, "source_root": "/x", "path": name, "width_px": 60, "height_px": 30}
        for sha, name in ((A, "a.jpg"), (B, "b.jpg"))
    ]
    put_rows(tables, "media", *media)
    for key, by in ((KEY, 0.0), (NEXT, 1.0)):
        both = [box(0, "fox", by), box(1, "boar", 30 + by)]
        put_results(tables, result_rows([A], key, detections=both, width_px=60, height_px=30))
        put_results(tables, result_rows([B], key, detections=both[:1], width_px=60, height_px=30))
    show(tables, KEY)
    return tables


@pytest.fixture
def tables(untouched: Tables, tmp_path: Path) -> Tables:
    """Return a copy of the images, for this test alone."""
    return Tables(str(shutil.copytree(untouched.url, tmp_path / "tables")))


@pytest.fixture(scope="module")
def table(untouched: Tables) -> list[Row]:
    """Return the rows of an export before any change."""
    return exported(untouched)


def exported(tables: Tables) -> list[Row]:
    """Return the exported table as text, by image and rank."""
    file = Path(tables.url).parent / "out.csv"
    export(tables, "detections", file)
    rows = list(csv.DictReader(file.open(newline="")))
    return sorted(rows, key=lambda row: (row["media_sha256"], row["rank"]))


def written(tables: Tables, rows: list[Row], name: str = "edited.csv", **dialect: Any) -> Path:
    file = Path(tables.url).parent / name
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, list(rows[0]), **dialect)
        writer.writeheader()
        writer.writerows(rows)
    return file


def labelled(rows: list[Row], *labels: str) -> list[Row]:
    return [row | {"label": label} for row, label in zip(rows, labels, strict=True)]


def add(tables: Tables, file: Path, by: str = "Ana") -> int:
    return append(tables, read_assertions(tables, file, by).rows)


def shown(tables: Tables) -> list[str]:
    """Return labels by image and rank, with a mark if a person set them."""
    sql = "select label, said_by from detections order by media_sha256, rank nulls last"
    return [row["label"] + "!" * bool(row["said_by"]) for row in query(tables, sql).to_pylist()]


def counts(read: Read) -> tuple[int, int, list[str]]:
    return read.unchanged, read.repeated, sorted(read.rows["action"].to_pylist())


def test_a_changed_label_is_a_relabel_and_a_cleared_one_is_nothing(tables: Tables, table: list[Row]) -> None:
    file = written(tables, labelled(table, "badger", "boar", ""))
    read = read_assertions(tables, file, "Ana")
    assert counts(read) == (1, 0, ["relabel", "suppress"])
    assert append(tables, read.rows) == 2
    assert shown(tables) == ["badger!", "boar"]
    said = {row["action"]: row for row in rows_of(tables, "assertions")}
    assert (said["relabel"]["actor"], said["relabel"]["rank"]) == ("Ana", 0)
    assert said["relabel"]["reason"].startswith("edited.csv ")
    assert counts(read_assertions(tables, file, "Ana")) == (1, 2, [])
    file = written(tables, labelled(exported(tables), "badger", "-"))
    assert add(tables, file) == 1
    assert shown(tables) == ["badger!"]


def semicolons(tables: Tables, rows: list[Row]) -> Path:
    """Return the CSV UTF-8 of Excel with decimal commas, and empty columns and rows at the end."""
    file = written(tables, rows, delimiter=";", quoting=csv.QUOTE_ALL)
    lines = file.read_text().split("\n")
    text = "\r\n".join(line.rstrip("\r") + ";;" for line in lines if line) + "\r\n;;;\r\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    return file


def tabs(tables: Tables, rows: list[Row]) -> Path:
    """Write some columns of the rows in reverse, separated by tabs, with fractional ranks."""
    names = ("label", "rank", "exported_label", "inference_key", "media_sha256")
    odd = [row | {"rank": row["rank"] + ".0"} for row in reversed(rows)]
    return written(tables, [{name: row[name] for name in names} for row in odd], delimiter="\t")


def parquet(tables: Tables, rows: list[Row]) -> Path:
    out = Path(tables.url).parent / "out.parquet"
    export(tables, "detections", out)
    labels = {(row["media_sha256"], row["rank"]): row["label"] or None for row in rows}
    made = pq.read_table(out).to_pylist()
    for row in made:
        row["label"] = labels[row["media_sha256"], str(row["rank"])]
    pq.write_table(pa.Table.from_pylist(made), out)
    return out


def without_what_it_was(tables: Tables, rows: list[Row]) -> Path:
    """Rows from `resight sql`: the label is compared with the current one."""
    return written(tables, [{k: v for k, v in row.items() if k != "exported_label"} for row in rows])


@pytest.mark.parametrize("save", [semicolons, tabs, parquet, without_what_it_was])
def test_a_table_is_read_as_it_was_saved(
    tables: Tables, table: list[Row], save: Callable[[Tables, list[Row]], Path]
) -> None:
    file = save(tables, labelled(table, "badger ", "", "fox"))
    read = read_assertions(tables, file, "Ana")
    assert counts(read) == (1, 0, ["relabel", "suppress"])
    labels = dict(zip(read.rows["action"].to_pylist(), read.rows["label"].to_pylist(), strict=True))
    assert labels == {"relabel": "badger", "suppress": "boar"}
    assert append(tables, read.rows) == 2
    assert add(tables, file) == 0


def test_rows_that_were_not_edited_leave_what_others_said_meanwhile(tables: Tables, table: list[Row]) -> None:
    """Importing an old file again does not revert later corrections."""
    ana = written(tables, labelled(table, "badger", "boar", "fox"), "ana.csv")
    ben = written(tables, labelled(table, "fox", "wild boar", "fox"), "ben.csv")
    assert (add(tables, ana), add(tables, ben, "Ben")) == (1, 1)
    later = labelled(exported(tables), "dog", "wild boar", "fox")
    assert add(tables, written(tables, later, "later.csv")) == 1
    assert add(tables, ana) == 0
    assert shown(tables) == ["dog!", "wild boar!", "fox"]
    back = labelled(exported(tables), "badger", "wild boar", "fox")
    assert add(tables, written(tables, back, "back.csv")) == 1, "Ana may come back to her first word"
    assert shown(tables)[0] == "badger!"


def test_a_row_that_another_person_had_made_right_is_added_once_that_is_withdrawn(
    tables: Tables, table: list[Row]
) -> None:
    moment = {"actor": "ben", "asserted_at": "2026-05-14T12:00:00Z"}
    words = [{"media_sha256": A, "inference_key": KEY, "rank": 1, **moment} for _ in range(2)]
    of_ben = [word | {"action": action} for word, action in zip(words, ("relabel", "withdraw"), strict=True)]
    assert add(tables, written(tables, [of_ben[0] | {"label": "fox"}], "ben.csv")) == 1
    file = written(tables, labelled(table, "badger", "fox", "fox"))
    assert counts(read_assertions(tables, file, "Ana")) == (1, 1, ["relabel"])
    assert add(tables, file) == 1
    later = of_ben[1] | {"asserted_at": "2026-05-15T12:00:00Z"}
    assert add(tables, written(tables, [later], "withdrawn.csv")) == 1
    assert counts(read_assertions(tables, file, "Ana")) == (1, 1, ["relabel"])
    assert add(tables, file) == 1
    assert shown(tables) == ["badger!", "fox!", "fox"]


def test_a_row_that_is_cut_off_hides_nothing(tables: Tables, table: list[Row]) -> None:
    file = written(tables, table[:2])
    names = list(table[2])
    with file.open("a") as text:
        text.write(",".join(table[2][name] for name in names[: names.index("label")]))
    with pytest.raises(BadRequest, match="row 3: it has no exported_label: is the file cut off"):
        add(tables, file)


def test_corrections_of_what_another_model_saw_hold_for_what_covers_its_boxes(tables: Tables, table: list[Row]) -> None:
    file = written(tables, labelled(table, "badger", "boar", ""))
    show(tables, NEXT)
    add(tables, file)
    assert shown(tables) == ["badger!", "boar"]


def test_an_animal_that_was_added_is_renamed_and_taken_back(tables: Tables) -> None:
    moment = {"actor": "kim", "asserted_at": "2026-05-14T12:00:00Z"}
    hare = {"action": "add", "media_sha256": A, "label": "hare", **ADDED, **moment}
    assert add(tables, written(tables, [hare])) == 1
    table = exported(tables)
    for label, action, now in (("dog", "add", ["dog!"]), ("", "withdraw", [])):
        file = written(tables, [row | {"label": label} if not row["rank"] else row for row in table])
        read = read_assertions(tables, file, "Ana")
        assert counts(read) == (3, 0, [action])
        assert (append(tables, read.rows), add(tables, file)) == (1, 0)
        assert shown(tables) == ["fox", "boar", *now, "fox"]


def test_a_row_without_the_field_label_is_refused_and_an_empty_one_hides(tables: Tables, table: list[Row]) -> None:
    """No JSON row can hide a detection by leaving something out."""
    file = Path(tables.url).parent / "edited.jsonl"
    first, second, third = labelled(table, "5", "", "fox")
    for lacking in ("label", "rank", "inference_key"):
        rows = [first, {name: value for name, value in second.items() if name != lacking}, third]
        file.write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(BadRequest, match=rf"nothing was added\nrow 2: {lacking}: missing; use null"):
            add(tables, file)
    file.write_text("\n".join(map(json.dumps, [first | {"label": 5}, second | {"label": None}, third])))
    assert add(tables, file) == 2
    assert shown(tables) == ["5!", "fox"]


def test_an_inference_key_that_is_not_published_is_a_remark(tables: Tables, table: list[Row]) -> None:
    rows = read_assertions(tables, written(tables, labelled(table, "boar", "boar", "fox")), "Ana").rows
    assert remarks(tables, rows) == []
    show(tables, NEXT)
    (said,) = remarks(tables, rows)
    assert said.startswith(f"inference key {KEY[:12]}… is not published: statements about its detections apply to")


def test_new_labels_are_listed_with_those_they_are_like(tables: Tables, table: list[Row]) -> None:
    file = written(tables, labelled(table, "fix", "wombat", "fix"))
    assert remarks(tables, read_assertions(tables, file, "Ana").rows) == [
        "new label 'fix' (rows: 2); did you mean fox?",
        "new label 'wombat' (rows: 1)",
    ]
    add(tables, file)
    again = written(tables, labelled(table, "wombat", "wombat", "fix"))
    assert remarks(tables, read_assertions(tables, again, "Ana").rows) == [], "people know it now"


DAMAGED: list[tuple[Row, str]] = [
    ({"media_sha256": "1,00E+63"}, "media_sha256 '1,00E+63': not 64 hex digits"),
    ({"inference_key": KEY[:-1]}, f"inference_key '{KEY[:-1]}': not 64 hex digits"),
    ({"media_sha256": "c" * 64}, f"image {'c' * 64} has no detection 1"),
    ({"inference_key": "3" * 64}, f"no detection 1 under inference key {'3' * 64}"),
    ({"rank": "7"}, "has no detection 7"),
    ({"rank": "1,5"}, "rank '1,5': Input should be a valid integer"),
    ({"rank": ""}, "inference_key and rank must be given together"),
    ({"rank": "", "inference_key": "", "x1_px": "5,5"}, "x1_px '5,5': Input should"),
    ({"rank": "0"}, "label 'boar', but row 1 has 'cat'"),
]


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_table_with_damaged_rows_is_refused_as_a_whole(tables: Tables, table: list[Row], suffix: str) -> None:
    """Damaged rows are rejected even if their label is unchanged."""
    first, second, third = labelled(table, "cat", "boar", "cat")
    rows: list[Any] = [first, *(second | change for change, _ in DAMAGED), third]
    messages = [message for _, message in DAMAGED]
    file = Path(tables.url).parent / f"edited{suffix}"
    if suffix == ".csv":
        written(tables, rows, file.name)
    else:
        file.write_text(json.dumps([*rows, 5]))
        messages += ["", "it must be an object"]
    with pytest.raises(BadRequest) as error:
        add(tables, file)
    lines = {int(n): why for n, why in re.findall(r"^row (\d+): (.*)$", str(error.value), re.MULTILINE)}
    assert all(message in lines.get(n, "") for n, message in enumerate(messages, 2)), lines
    assert "import its columns as text" in str(error.value)
    assert tables.existing("assertions") is None


def test_what_lacks_is_named_once(tables: Tables, table: list[Row]) -> None:
    rows = table
    few = [{name: row[name] for name in ("media_sha256", "label")} for row in rows]
    with pytest.raises(BadRequest, match=r"missing column 'inference_key', 'rank'; nothing was added\ncolumns: "):
        add(tables, written(tables, few))
    with pytest.raises(BadRequest, match='--by "Ana"'):
        read_assertions(tables, written(tables, rows))
    (Path(tables.url).parent / "old.csv").write_bytes("label\nKätzchen".encode("cp1252"))
    with pytest.raises(BadRequest, match="not UTF-8; save it as 'CSV UTF-8'"):
        add(tables, Path(tables.url).parent / "old.csv")
