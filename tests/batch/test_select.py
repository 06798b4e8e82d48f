"""Which images a scope means, against the rows of `media` picked by hand."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.schemas import MEDIA
from archive.tables import Tables
from archive.views import View, Views
from batch.id_list import keep_ids, name_ids, read_ids
from batch.plan import make_plan
from batch.scope import Scope
from model_store.errors import BadRequest
from model_store.store import ModelVersion
from tests.fixtures_local import put_results, result_rows

ROWS: tuple[dict[str, Any], ...] = (
    {"path": "north/2026-05/a.jpg", "captured_at_local": "2026-05-14T06:00:00"},
    {"path": "north/2026-05/b.jpg", "captured_at_local": "2026-05-14T06:00:00.250000"},
    {"path": "north/2026-06/c.jpg", "captured_at_local": "2026-06-01T00:00:00"},
    {"path": "south/d'e [1].jpg", "captured_at_local": None, "camera_id": "south"},
)


def sha(name: str) -> str:
    return name[-5].encode().hex().rjust(64, "0")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    tables = Tables(str(tmp_path / "tables"))
    common = {"source_root": "/a", "size_bytes": 10, "camera_id": "north"}
    rows = [common | {"media_sha256": sha(row["path"])} | row for row in ROWS]
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", media, "test", lambda _, wanted: wanted)
    return tables


def asked(tables: Tables, motion: ModelVersion, **scope: Any) -> list[str]:
    plan = make_plan(tables, motion, Scope(**scope))
    rows = [row for window in plan.windows(2) for row in window.to_pylist()]
    return sorted(Path(row["path"]).name[0] for row in rows)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        ("2026-05-14", None, "abc"),
        ("2026-05-14T06:00", None, "abc"),
        ("2026-05-14T06:00:00.1", None, "bc"),
        (None, "2026-06-01", "ab"),
        (None, "2026-06-01T00:00:00.000001", "abc"),
        ("2026-05-14T06:00", "2026-05-14T06:00:00.25", "a"),
        ("2026-06-01", "2027-01-01", "c"),
    ],
)
def test_times_are_from_and_before_by_the_cameras_clock(
    tables: Tables, motion: ModelVersion, start: str | None, end: str | None, found: str
) -> None:
    """An image without a time is in no range."""
    limits = {"start": start and at(start), "end": end and at(end)}
    assert asked(tables, motion, kind="time", **limits) == list(found)


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("*", "abcd"),
        ("north/*", "abc"),
        ("north/2026-05/?.jpg", "ab"),
        ("*/c.jpg", "c"),
        ("south/d'e *", "d"),
        ("*[[]1].jpg", "d"),
    ],
)
def test_paths_match_a_glob(tables: Tables, motion: ModelVersion, glob: str, found: str) -> None:
    assert asked(tables, motion, kind="path", path=glob) == list(found)


def test_a_scope_without_images_says_what_was_asked(tables: Tables, motion: ModelVersion) -> None:
    with pytest.raises(BadRequest, match="no image has kind 'path', path 'east/\\*'"):
        make_plan(tables, motion, Scope(kind="path", path="east/*"))


def box(label: str, score: float) -> dict[str, Any]:
    return {"rank": 0, "label": label, "score": score}


@pytest.fixture
def published(tables: Tables) -> Tables:
    """a: cat .9; b: cat .5 and dog .3; c: dog .29. Cats are shown from .5 on, others from .3."""
    seen = {
        "a": [box("cat", 0.9)],
        "b": [box("cat", 0.5), box("dog", 0.3)],
        "c": [box("dog", 0.29)],
    }
    for letter, detections in seen.items():
        put_results(tables, result_rows([sha(f"{letter}.jpg")], key="k", detections=detections))
        other = result_rows([sha(f"{letter}.jpg")], key="other", detections=[box("fox", 1.0)])
        put_results(tables, other)
    view = View(
        inference_key="k",
        model_name="m",
        model_version="1",
        weights_sha256="w",
        threshold=0.3,
        label_thresholds={"cat": 0.5},
    )
    Views(tables.url).publish(view, after=0)
    return tables


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ({"label": "cat"}, "ab"),
        ({"label": "cat", "min_score": 0.5, "max_score": 0.9}, "b"),
        ({"label": "cat", "min_score": 0.9}, "a"),
        ({"label": "dog"}, "b"),
        ({"max_score": 0.4}, "b"),
        ({"min_score": 0.0}, "ab"),
    ],
)
def test_labels_are_those_that_the_published_view_shows(
    published: Tables, motion: ModelVersion, scope: dict[str, Any], found: str
) -> None:
    assert asked(published, motion, kind="label", **scope) == list(found)


def test_labels_need_a_published_view(tables: Tables, motion: ModelVersion) -> None:
    with pytest.raises(BadRequest, match="nothing is published"):
        make_plan(tables, motion, Scope(kind="label", label="cat"))


def listed(tables: Tables, folder: Path, *names: str) -> Scope:
    file = folder / "list.txt"
    file.write_text("\n".join(names))
    return Scope(kind="ids", ids=name_ids(file))


def test_a_list_is_those_images(tables: Tables, motion: ModelVersion, tmp_path: Path) -> None:
    scope = listed(tables, tmp_path, sha("c.jpg"), sha("a.jpg").upper(), "", sha("c.jpg"))
    assert make_plan(tables, motion, scope).requested_ids().to_pylist() == [
        sha("a.jpg"),
        sha("c.jpg"),
    ]


def test_a_list_that_names_others_is_a_mistake(
    tables: Tables, motion: ModelVersion, tmp_path: Path
) -> None:
    scope = listed(tables, tmp_path, sha("a.jpg"), "f" * 64)
    with pytest.raises(BadRequest, match="1 of 2 listed images are not in the catalogue.*ffff"):
        make_plan(tables, motion, scope)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no line"),
        ("media_sha256\n", "has no line"),
        ("a" * 64 + "\nxyz\n", "line 2: 'xyz' is no sha256"),
        ("a" * 63, "line 1"),
    ],
)
def test_a_list_that_is_none_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "list"
    file.write_text(text)
    with pytest.raises(BadRequest, match=words):
        name_ids(file)


def test_other_processes_find_a_list_that_is_kept(tmp_path: Path, monkeypatch: Any) -> None:
    file, url = tmp_path / "list", str(tmp_path / "tables")
    file.write_text("b" * 64 + "\n" + "a" * 64)
    name = name_ids(file)
    for _ in range(2):
        keep_ids(url, name)
    monkeypatch.setattr("batch.id_list._named", {})
    keep_ids(url, name)
    assert read_ids(url, name).to_pylist() == ["a" * 64, "b" * 64]
    with pytest.raises(BadRequest, match="no list of images other"):
        read_ids(url, "other")


def test_windows_are_all_there_is_in_pieces(tables: Tables, motion: ModelVersion) -> None:
    for images, sizes in ((1, [1, 1, 1, 1]), (3, [3, 1]), (4, [4]), (9, [4])):
        plan = make_plan(tables, motion, Scope())
        assert [len(window) for window in plan.windows(images)] == sizes
        assert len(plan.some(2)) == 2
