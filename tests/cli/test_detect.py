"""resight detect: a model over some pictures, without a cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.cli.conftest import Resight
from tests.fixtures_local import MODELS, photo, write_files


@pytest.fixture
def pictures(home: Path, tmp_path: Path) -> Path:
    shutil.copytree(MODELS, home / "models")
    files = {"cat.jpg": photo("cat"), "night/panda.jpg": photo("panda"), "night/notes.txt": b"x"}
    return write_files(tmp_path / "pictures", files)


def test_files_and_folders_are_seen_and_drawn(resight: Resight, pictures: Path) -> None:
    words = (pictures / "cat.jpg", pictures / "night", "--model", "ssdlite-coco")
    seen = pictures.parent / "seen"
    rows = json.loads(resight("detect", *words, "--draw", seen, "--format", "json").ok())
    assert {(row["image"], row["label"]) for row in rows} >= {("cat.jpg", "cat")}
    assert {row["image"] for row in rows} == {"cat.jpg", "panda.jpg"}
    (cat,) = [row for row in rows if row["label"] == "cat"]
    drawn = cv2.imread(str(seen / "cat.jpg"))
    plain = cv2.imread(str(pictures / "cat.jpg"))
    assert drawn is not None
    assert plain is not None
    assert drawn.shape == plain.shape
    edge = np.abs(drawn.astype(int) - plain)[:, round(cat["x2_px"])]
    assert edge.mean() > 20, "the right edge of the box is drawn"
    assert (seen / "panda.jpg").exists()
    assert "cat" in resight("detect", *words).ok()


def test_a_picture_without_detections_has_a_row(resight: Resight, pictures: Path) -> None:
    words = (pictures / "cat.jpg", "--model", "ssdlite-coco", "--min-score", "1")
    (row,) = json.loads(resight("detect", *words, "--format", "json").ok())
    assert (row["image"], row["label"], row["score"]) == ("cat.jpg", None, None)


def test_an_unreadable_picture_is_named_and_the_others_are_seen(
    resight: Resight, pictures: Path
) -> None:
    write_files(pictures, {"bad.jpg": b"<html>"})
    done = resight("detect", pictures, "--model", "motion", "--format", "json")
    assert done.code == 1
    assert "unreadable: bad.jpg: " in done.err
    assert {row["image"] for row in json.loads(done.out)} == {"cat.jpg", "night/panda.jpg"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["gone.jpg", "--model", "motion"], 2, "is no file and no folder"),
        (["cat.jpg", "--model", "elk"], 6, "there is: motion, ssdlite-coco"),
    ],
)
def test_what_is_not_there_is_refused(
    resight: Resight, pictures: Path, words: list[str], code: int, message: str
) -> None:
    assert message in resight("detect", pictures / words[0], *words[1:]).refused(code)
