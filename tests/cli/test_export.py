"""`resight export`: a relation of a view or a run; scopes, options and refusals of formats."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from archive.delta.tables import Tables
from model_store.store import ModelStore
from tests.archive.formats.small_archive import LABELS, small_archive
from tests.cli.conftest import Resight
from tests.cli.ran import key, rows

NAME = "megadetector"


@pytest.fixture
def archive(home: Path) -> None:
    home.mkdir()
    small_archive(str(home / "tables"))


def files(out: Path) -> list[str]:
    return [image["file"] for image in json.loads(out.read_text())["images"]]


@pytest.mark.usefixtures("archive")
def test_a_format_has_the_images_of_a_scope(resight: Resight, tmp_path: Path) -> None:
    out = tmp_path / "md.json"
    facts = json.loads(resight("export", NAME, out, "--format", "json").ok())
    assert facts == {"format": NAME, "images": 6, "file": str(out)}
    assert files(out) == [*("north/a.jpg", "north/b.jpg", "south/c.jpg", "south/copy.jpg", "z.jpg")]
    assert tuple(json.loads(out.read_text())["detection_categories"].values()) == LABELS
    for words, expected in (
        (["--camera", "north"], ["north/a.jpg", "north/b.jpg"]),
        (["--path", "south/*", "--label", "fox"], ["south/copy.jpg"]),
        (
            ["--camera", "north", "--until", "2027-01-01", "--sample", "9", "--floor", "0.95"],
            ["north/a.jpg", "north/b.jpg"],
        ),
    ):
        resight("export", NAME, out, *words, "--overwrite").ok()
        assert files(out) == expected


@pytest.mark.usefixtures("archive")
def test_a_data_set_is_counted_as_it_was_written(resight: Resight, tmp_path: Path) -> None:
    out = tmp_path / "yolo"
    done = resight("export", "yolo", out, "--format", "json")
    facts = json.loads(done.ok())
    assert (facts["reviewed"], facts["train"] + facts["val"]) == (2, 3)
    assert "no person has made a statement about 1 of these images" in done.err
    links = [file for file in (out / "images").rglob("*") if file.is_symlink()]
    assert (facts["images"], facts["left_out"], len(links)) == (3, 2, 3), "6 files: one is a copy, two have no result"


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["megadetektor", "x.json"], "unknown relation or format 'megadetektor'"),
        ([NAME, "x.json", "--camera", "west"], "unknown camera 'west'"),
        ([NAME, "x.json", "--set", "a"], "invalid --set 'a': use NAME=VALUE"),
        ([NAME, "x.json", "--set", "a=b"], "unknown option 'a' of megadetector"),
        ([NAME, "x.txt"], "ends in .json"),
        (["media", "x.csv", "--camera", "north"], "--set apply to megadetector"),
    ],
)
def test_what_no_format_can_have_ends_with_2(resight: Resight, tmp_path: Path, words: list[str], message: str) -> None:
    what, name, *more = words
    assert message in resight("export", what, tmp_path / name, *more).refused(2)
    assert not (tmp_path / name).exists()


@pytest.mark.usefixtures("archive")
def test_a_file_with_edits_is_not_replaced(resight: Resight, tmp_path: Path) -> None:
    out = tmp_path / "md.json"
    out.write_text("mine")
    assert "replace it with --overwrite" in resight("export", NAME, out).refused(2)
    assert out.read_text() == "mine"


def test_an_export_is_of_a_view_or_a_run_and_is_recorded(
    resight: Resight, two: Tables, store: ModelStore, tmp_path: Path
) -> None:
    out = tmp_path / "x.parquet"
    done = resight("export", "detections", out, "--format", "json")
    assert json.loads(done.ok()) == {"relation": "detections", "rows": 0, "file": str(out)}
    assert "resight runs publish" in done.err
    resight("runs", "publish", "old").ok()
    assert f"{out} exists" in resight("export", "detections", out).refused(2)
    assert pq.read_table(out).num_rows == 0
    resight("export", "detections", out, "--overwrite").ok()
    assert pq.read_table(out).num_rows == 2
    resight("export", "detections", out, "--run", "new", "--overwrite").ok()
    assert pq.read_table(out).num_rows == 4
    sql = "select view, rows, inference_keys from exports order by exported_at"
    assert rows(resight("sql", sql, "--format", "json").ok()) == [
        {"view": None, "rows": 0, "inference_keys": []},
        {"view": "production 1", "rows": 2, "inference_keys": [key(store, "1")]},
        {"view": "run new", "rows": 4, "inference_keys": [key(store, "2")]},
    ]
