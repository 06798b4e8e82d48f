"""The work of people in other tools, as statements."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from archive.annotations.assertions import append
from archive.annotations.batches import BatchStatement
from archive.annotations.foreign_work import Work, read_work
from archive.annotations.import_file import Read
from archive.delta.tables import Tables
from archive.views.query import query
from archive.views.views import Views
from model_store.errors import BadRequest
from tests.archive.annotations.two_images import (
    BOAR,
    EMPTY,
    FOX,
    A,
    B,
    box,
    key_of,
    named,
    put_images,
    record,
    withdraw,
)
from tests.fixtures_local import put_results, put_rows, result_rows

LYNX = (0.5, 0.5, 0.9, 0.9)
"""A box without a detection."""
NORTH = "f" * 64
DOG = {"rank": 0, "label": "dog", "class_id": 0, "score": 0.9, **box(FOX)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("filled")
    put_images(Tables(str(out)))
    return out


@pytest.fixture
def filled(folder: Path, tmp_path: Path) -> Tables:
    return Tables(str(shutil.copytree(folder, tmp_path / "tables")))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "work.json"
    path.write_text("any")
    return path


def parts(corners: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Return pixels of an image of 40 x 30 in parts of it."""
    x1, y1, x2, y2 = corners
    return x1 / 40, y1 / 30, x2 / 40, y2 / 30


def add(tables: Tables, file: Path, *works: Work, **more: Any) -> Read:
    read = read_work(tables, file, works, **({"by": "kim"} | more))
    append(tables, read.rows)
    return read


def shown(tables: Tables) -> list[tuple[Any, ...]]:
    rows = query(tables, "select media_sha256[1], label, said_by from detections order by all")
    return [tuple(row.values()) for row in rows.to_pylist()]


def test_a_box_names_the_detection_that_it_covers_or_adds_an_animal(filled: Tables, file: Path) -> None:
    works = [Work(1, "a", "wolf", parts(FOX)), Work(2, "a", "lynx", LYNX, (400, 300))]
    read = add(filled, file, *works)
    assert (len(read.rows), read.left_out) == (2, {})
    assert shown(filled) == [
        *(("a", "boar", None), ("a", "lynx", "human"), ("a", "wolf", "human")),
        *(("b", "boar", None), ("b", "fox", None)),
    ]


def make_boars(tables: Tables, file: Path) -> None:
    """Name the fox of image b, so that all its detections have one label."""
    other = file.with_name("boars.json")
    other.write_text("boars")
    add(tables, other, Work(1, "b", "boar", parts(FOX)))


def test_an_empty_image_has_no_detection_and_a_label_of_an_image_applies_to_all_of_them(
    filled: Tables, file: Path
) -> None:
    make_boars(filled, file)
    read = add(filled, file, Work(1, "a", None), Work(2, "b", "wolf"))
    assert len(read.rows) == 3
    assert shown(filled) == [("b", "wolf", "human")] * 2


def test_a_label_of_an_image_is_added_once_whatever_its_detections_are_now(filled: Tables, file: Path) -> None:
    make_boars(filled, file)
    add(filled, file, Work(1, "b", "wolf"))
    own = file.with_name("own.json")
    own.write_text("own")
    add(filled, own, *(Work(n, "b", "dog", parts(c)) for n, c in enumerate((FOX, BOAR))), by="ana")
    again = add(filled, file, Work(1, "b", "wolf"), by="lee")
    assert (len(again.rows), again.repeated) == (0, 2)
    put_results(filled, result_rows([B], "n" * 64, detections=[DOG], width_px=40, height_px=30))
    view = Views(filled.url).current()
    assert view
    Views(filled.url).publish(view.model_copy(update={"inference_key": "n" * 64}), after=1)
    assert len(add(filled, file, Work(1, "b", "wolf")).rows) == 0
    file.write_text("another content")
    assert len(add(filled, file, Work(1, "b", "wolf")).rows) == 2


def test_an_own_export_adds_only_what_people_had_not_stated(filled: Tables, file: Path) -> None:
    """Their names are not in it. Later statements of others, and withdrawals, are not overruled."""
    drawn = {"action": "add", "media_sha256": B, "label": "lynx|cub", **box((20.0, 15.0, 36.0, 27.0))}
    mine = [named("relabel", label="wolf"), BatchStatement.model_validate(drawn)]
    record(filled, key_of(1), [*mine, BatchStatement(action="suppress", media_sha256=EMPTY)], "kim")
    record(filled, key_of(2), [named("relabel", label="dog")], "lee")
    withdraw(filled, key_of(3), key_of(1), "kim")
    own = [Work(1, "a", "wolf", parts(FOX)), Work(2, "b", "lynx/cub", LYNX), Work(3, "e", None)]
    more = [Work(4, "a", "cub", parts(FOX)), Work(5, "a", "wolf", LYNX)]
    works = [replace(work, actor="human") for work in (*own, *more)]
    read = read_work(filled, file, works)
    assert (read.rows["label"].to_pylist(), read.repeated) == (["cub", "wolf"], 3)
    assert len(read_work(filled, file, own, by="ana").rows) == 3, "she confirms them"


def test_an_image_that_is_left_out_adds_no_statement_at_all(filled: Tables, file: Path) -> None:
    read = add(filled, file, Work(1, "a", "lynx", LYNX), Work(2, "a", "cat"), Work(3, "e", None))
    assert (list(read.left_out), len(read.rows)) == (["a"], 1)


@pytest.mark.parametrize(
    ("root", "found"),
    [
        (None, {"e": EMPTY, "/x/e": EMPTY, "n\u00f6rth/n": NORTH, "/data/all/n\u00f6rth/n": NORTH, "/old/n": NORTH}),
        (None, {"n\u00f6rth\\n": NORTH, "C:\\data\\all\\n\u00f6rth\\n": NORTH}),
        ("/x", {"media/e": EMPTY, "/data/x/e": EMPTY, "n": NORTH, "/old/n": NORTH}),
    ],
)
def test_tools_may_put_folders_before_a_path_but_a_name_alone_needs_a_root(
    filled: Tables, file: Path, root: str | None, found: dict[str, str]
) -> None:
    row = {"source_root": "/x", "media_sha256": NORTH, "path": "all/no\u0308rth/n"}  # as a Mac writes it
    gone = {"missing_since": datetime(2026, 5, 1, tzinfo=UTC)}
    moved = row | {"source_root": "/old", "path": "n"} | gone
    another = row | {"source_root": "/y", "media_sha256": "0" * 64} | ({} if root else gone)
    put_rows(filled, "media", row, moved, another)
    others = ["/y/all/n\u00f6rth/n"] if root else ["/y/all/n\u00f6rth/n", "media/e", "/data/x/e", "card2/b", "n"]
    read = read_work(filled, file, [Work(n, path, None) for n, path in enumerate([*found, *others])], root, "kim")
    assert read.rows["media_sha256"].to_pylist() == list(found.values())
    assert sorted(read.left_out) == sorted(others)


def test_of_two_unicode_forms_each_is_its_own_file(filled: Tables, file: Path) -> None:
    forms = {"no\u0308rth/n": NORTH, "n\u00f6rth/n": "0" * 64}
    rows = ({"source_root": "/x", "media_sha256": sha, "path": path} for path, sha in forms.items())
    put_rows(filled, "media", *rows)
    works = [Work(n, f"/x/{path}", None) for n, path in enumerate(forms)]
    assert read_work(filled, file, works, None, "kim").rows["media_sha256"].to_pylist() == list(forms.values())


@pytest.mark.parametrize(("root", "found"), [("/x", 1), ("/x/", 1), ("/x/e", 0), (None, 1)])
def test_the_root_is_an_archive_or_a_folder_of_one(filled: Tables, file: Path, root: str | None, found: int) -> None:
    works = [Work(1, "e", None)]
    if found:
        assert len(read_work(filled, file, works, root, "kim").rows) == found
    else:
        with pytest.raises(BadRequest, match="no image of it is in the catalogue"):
            read_work(filled, file, works, root, "kim")


@pytest.mark.parametrize(
    ("works", "left_out"),
    [
        ([Work(2, "north/b2", None)], "it is not in the catalogue"),
        ([Work(2, "b", "wolf")], "'wolf' has no box, and the view shows boar, fox: draw boxes"),
        ([Work(2, "e", "fox")], "'fox' has no box, and the view shows no detection: draw one"),
        ([Work(2, "b", "fox", LYNX, (300, 400))], "as 300 x 400 px, but it is displayed as 40 x 30"),
        ([Work(2, "b", "fox"), Work(3, "b", "wolf")], "several labels without a box: 'fox', 'wolf'"),
        ([Work(2, "b", "fox", LYNX), Work(3, "b", None)], "calls it empty, but has boxes of it"),
        ([Work(2, "b", None, media_sha256=NORTH)], "the catalogue has another image of this path"),
    ],
)
def test_other_images_are_added_and_these_are_left_out_with_the_reason(
    filled: Tables, file: Path, works: list[Work], left_out: str
) -> None:
    read = read_work(filled, file, [Work(1, "a", None, media_sha256=A), *works], None, "kim")
    assert read.rows["media_sha256"].to_pylist() == [A]
    assert list(read.left_out) == [works[0].path]
    assert left_out in read.left_out[works[0].path]


@pytest.mark.parametrize(
    ("works", "more", "words"),
    [
        ([], {}, "it has no work of a person"),
        ([Work(1, "other/archive.jpg", None)], {}, "no image of it is in the catalogue, such as other"),
        ([Work(1, "a", None)], {"root": "/y"}, "no image of it is in the catalogue"),
        ([Work(1, "a", None), Work(7, "b", "x", (0.5, 0.5, 1.5, 1))], {}, "row 7: the box lies outside"),
        ([Work(1, "a", None), Work(7, "b", "x", (0.5, 0.5, 0.5, 1))], {}, "row 7: a box needs x1_px"),
        ([Work(7, "a", None)], {"by": None}, "row 7: actor: missing; add the column, or give --by"),
        ([Work(7, "a", None, asserted_at="noon")], {}, "row 7: asserted_at 'noon'"),
    ],
)
def test_an_invalid_file_adds_nothing(
    filled: Tables, file: Path, works: list[Work], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        add(filled, file, *works, **more)
    assert filled.existing("assertions") is None


def test_the_author_and_the_time_of_the_file_come_first(filled: Tables, file: Path) -> None:
    works = [Work(1, "a", None, actor="ana", asserted_at="2026-05-01T00:00:00Z"), Work(2, "b", None)]
    rows = add(filled, file, *works, at="2026-06-01T00:00:00Z").rows.to_pylist()
    assert [(r["actor"], r["asserted_at"].month) for r in rows] == [("ana", 5), ("kim", 6)]
