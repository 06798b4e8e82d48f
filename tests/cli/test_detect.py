"""resight detect: a model over some pictures, without a cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask

from tests.cli.conftest import Resight
from tests.fixtures_local import MODELS, photo, write_files
from tests.graphs import constant_graph
from tests.oracles.tensors import example


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


def test_masks_are_drawn_and_written_out(resight: Resight, home: Path, pictures: Path) -> None:
    outputs = example("yolov8_seg", np.random.default_rng(2), 1, 1, 64)
    weights = pictures / "deer.onnx"
    weights.write_bytes(constant_graph(outputs, 64, {"names": "['deer']", "task": "segment"}))
    resight("models", "add", weights, "--name", "deer", "--version", "1").ok()
    words = ("detect", pictures / "cat.jpg", "--model", "deer@1", "--min-score", "0.3")
    seen = pictures / "seen"
    rows = json.loads(resight(*words, "--draw", seen, "--format", "json").ok())
    drawn = cv2.imread(str(seen / "cat.jpg"))
    plain = cv2.imread(str(pictures / "cat.jpg"))
    assert drawn is not None
    assert plain is not None
    size = list(plain.shape[:2])
    assert len(rows) > 1
    for row in rows:
        inside = mask.decode({"size": size, "counts": row["mask_rle"].encode()}).astype(bool)
        assert inside.sum() == row["mask_area_px"] > 0
        greener = drawn[inside].astype(int) - plain[inside]
        assert greener[:, 1].mean() > greener[:, 2].mean() + 20
    header = resight(*words).ok().splitlines()[0]
    assert "mask_area_px" in header
    assert "mask_rle" not in header
