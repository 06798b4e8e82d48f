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
from tests.fixtures_local import MODELS, encoded, photo, write_files
from tests.graphs import colour_head, constant_graph
from tests.oracles.tensors import example
from tests.shared_data import shared


@pytest.fixture
def pictures(home: Path, tmp_path: Path) -> Path:
    shutil.copytree(MODELS, home / "models")
    files = {"cat.jpg": photo("cat"), "night/panda.jpg": photo("panda"), "night/notes.txt": b"x"}
    (tmp_path / "pictures" / "night" / "folder.jpg").mkdir(parents=True)
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


def test_the_only_model_needs_no_name_and_the_first_one_is_named(resight: Resight, home: Path, pictures: Path) -> None:
    shutil.rmtree(home / "models" / "ssdlite-coco")
    (home / "models" / "motion" / "aliases.json").unlink()
    done = resight("detect", pictures / "cat.jpg")
    assert (done.code, done.err) == (0, "model: motion@1\n")
    shutil.rmtree(home / "models")
    for words in (["detect", pictures / "cat.jpg"], ["plan"], ["reprocess"]):
        assert "to begin with: resight models pull" in resight(*words).refused(6)


def test_a_picture_without_detections_has_a_row(resight: Resight, pictures: Path) -> None:
    words = (pictures / "cat.jpg", "--model", "ssdlite-coco", "--min-score", "1")
    (row,) = json.loads(resight("detect", *words, "--format", "json").ok())
    assert (row["image"], row["label"], row["score"]) == ("cat.jpg", None, None)


def test_an_unreadable_picture_is_named_and_the_others_are_seen(resight: Resight, pictures: Path) -> None:
    write_files(pictures, {"bad.jpg": b"<html>"})
    done = resight("detect", pictures, "--model", "motion", "--format", "json")
    assert done.code == 1
    assert "unreadable: bad.jpg: " in done.err
    assert {row["image"] for row in json.loads(done.out)} == {"cat.jpg", "night/panda.jpg"}


def test_what_is_not_there_is_refused(resight: Resight, pictures: Path) -> None:
    assert "is not a file or folder" in resight("detect", "gone.jpg", "--model", "motion").refused(2)
    refused = resight("detect", pictures / "cat.jpg", "--model", "elk").refused(6)
    assert "available: motion, ssdlite-coco" in refused


def test_a_real_detector_added_without_flags_sees_an_animal_and_nothing_on_blanks(resight: Resight) -> None:
    twin = "test_a_detector_added_without_flags_sees_a_red_patch_and_nothing_on_grey"
    weights = shared("models/trailcam_yolox_tiny_640.yolox-raw.fp16.onnx", twin)
    resight("models", "add", weights, "--name", "m").ok()
    photos = [shared(f"camera_trap/{name}.jpg", twin) for name in ("blank", "blank2", "blank3", "american_black_bear")]
    rows = json.loads(resight("detect", *photos, "--model", "m@1", "--format", "json").ok())
    assert [row["label"] for row in rows] == [None, None, None, "animal"]
    corners = [rows[-1][f"{corner}_px"] for corner in ("x1", "y1", "x2", "y2")]
    assert corners == pytest.approx([862, 656, 1566, 1185], abs=10), "the box by eye, rounded"
    assert rows[-1]["score"] == pytest.approx(0.80, abs=0.01)


@pytest.mark.parametrize(
    ("family", "patch", "box"),
    [  # of 640 x 320 px: the patch is cell (3, 2) of 8 px of the input of 64 x 64 px, moved by a quarter to the right
        ("yolov8", (240, 0, 320, 80), (260, 0, 340, 80)),  # 16 px of padding above
        ("ssd", (240, 80, 320, 120), (260, 80, 340, 120)),
        ("yolox_raw", (240, 160, 320, 240), (260, 160, 340, 240)),
    ],
)
def test_a_detector_added_without_flags_sees_a_red_patch_and_nothing_on_grey(
    resight: Resight, tmp_path: Path, family: str, patch: tuple[int, int, int, int], box: tuple[int, int, int, int]
) -> None:
    """The score of pure red is sigmoid(6), with the objectness sigmoid(4) of YOLOX; the three greys give none."""
    names = {"names": "{0: 'stone', 1: 'fox'}", "task": "detect"}
    scores = np.array([[0, 0, 0, -9], [16, -16, -16, -10]])
    (tmp_path / "m.onnx").write_bytes(colour_head(family, scores, metadata=names))
    resight("models", "add", tmp_path / "m.onnx").ok()
    pictures = [np.full((320, 640, 3), grey, np.uint8) for grey in (0, 128, 255, 128)]
    x1, y1, x2, y2 = patch
    pictures[3][y1:y2, x1:x2] = (255, 0, 0)
    files = {f"{i}.png": encoded(pixels, "PNG") for i, pixels in enumerate(pictures)}
    folder = write_files(tmp_path / "pictures", files)
    rows = json.loads(resight("detect", folder, "--model", "m@1", "--format", "json").ok())
    assert [row["label"] for row in rows] == [None, None, None, "fox"]
    corners = [rows[-1][f"{corner}_px"] for corner in ("x1", "y1", "x2", "y2")]
    assert corners == pytest.approx(box, abs=0.01)
    objectness = 1 / (1 + np.exp(-4)) if family == "yolox_raw" else 1
    assert rows[-1]["score"] == pytest.approx(objectness / (1 + np.exp(-6)), abs=1e-4)


def test_names_are_whole_where_no_terminal_is(
    resight: Resight, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = f"{'long-' * 30}name.jpg"
    write_files(pictures, {name: photo("cat")})
    table = resight("detect", pictures / name, "--model", "ssdlite-coco").ok()
    header, *lines = table.splitlines()
    assert all(line.startswith(name) for line in lines)
    assert header.split() == ["image", "label", "score", "x1_px", "y1_px", "x2_px", "y2_px", "note"]


def test_a_score_at_min_score_is_shown(resight: Resight, pictures: Path) -> None:
    """Scores are float32; 0.7 as one is a little less than 0.7."""
    rows = np.zeros((1, 3, 6), np.float32)
    rows[0] = [[1, 1, 30, 30, score, 0] for score in (0.7, np.nextafter(np.float32(0.7), 0), 0.9)]
    metadata = {"names": "['deer']", "end2end": "True"}
    (pictures / "deer.onnx").write_bytes(constant_graph({"output0": rows}, 64, metadata))
    resight("models", "add", pictures / "deer.onnx").ok()
    words = ("detect", pictures / "cat.jpg", "--model", "deer@1", "--format", "json")
    assert len(json.loads(resight(*words, "--min-score", "0.7").ok())) == 2
    assert len(json.loads(resight(*words, "--min-score", "0.6999").ok())) == 3


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_drawing_replaces_nothing_except_a_drawing(resight: Resight, pictures: Path) -> None:
    link, copies, other = (pictures.parent / name for name in ("link", "copies", "other"))
    link.symlink_to(pictures)
    copies.mkdir()
    (copies / "cat.jpg").hardlink_to(pictures / "cat.jpg")
    write_files(other, {"cat.jpg": photo("panda")})
    before = files_of(pictures.parent)
    words = ("detect", pictures, "--model", "motion", "--draw")
    for folder in (pictures, link, copies, other):
        assert f"{folder / 'cat.jpg'} exists, and resight did not write it" in resight(*words, folder).refused(2)
    assert files_of(pictures.parent) == before
    for _ in range(2):
        resight(*words, pictures.parent / "seen").ok()
    assert cv2.imread(str(pictures.parent / "seen" / "cat.jpg")) is not None


def test_nothing_is_drawn_into_an_archive(resight: Resight, pictures: Path) -> None:
    resight("ingest", pictures).ok()
    before = files_of(pictures)
    for folder in (pictures, pictures / "seen", pictures.parent):
        words = ("detect", pictures / "night" / "panda.jpg", "--model", "motion", "--draw", folder)
        assert f"{folder} and the archive {pictures} overlap" in resight(*words).refused(2)
    assert files_of(pictures) == before
    resight("detect", pictures / "cat.jpg", "--model", "motion", "--draw", f"{pictures}-seen").ok()


def test_pictures_of_one_stem_are_drawn_beside_each_other(resight: Resight, pictures: Path) -> None:
    write_files(pictures, {"cat.png": photo("cat"), "night/cat.JPG": photo("cat")})
    seen = pictures.parent / "seen"
    resight("detect", pictures, "--model", "motion", "--draw", seen).ok()
    assert set(files_of(seen)) == {"cat.jpg", "cat.png.jpg", "night/panda.jpg", "night/cat.JPG"}
    again = resight("detect", pictures, pictures / "cat.jpg", "--model", "motion", "--draw", seen)
    again.ok()


def test_two_pictures_of_one_name_are_refused_with_both(resight: Resight, pictures: Path) -> None:
    folders = [write_files(pictures / name, {"cat.jpg": photo("cat")}) for name in "ab"]
    seen = pictures.parent / "seen"
    said = resight("detect", *folders, "--model", "motion", "--draw", seen).refused(2)
    assert f"{folders[0] / 'cat.jpg'} and {folders[1] / 'cat.jpg'} would both be drawn as" in said
    assert not seen.exists()


def test_drawings_need_a_folder(resight: Resight, pictures: Path) -> None:
    words = ("detect", pictures / "cat.jpg", "--model", "motion", "--draw")
    note = pictures / "night" / "notes.txt"
    assert "is a file: use a folder" in resight(*words, note).refused(2)
    assert f"{note}/below" in resight(*words, note / "below").refused(7)
    assert note.read_bytes() == b"x"


def test_a_picture_of_which_the_network_says_nonsense_is_named_and_the_others_are_seen(
    resight: Resight, pictures: Path
) -> None:
    rows = np.zeros((256, 10, 6), np.float32)
    rows[:, 0] = [1, 1, 30, 30, 0.9, 0]
    rows[201:, 0, 4] = np.nan
    weights = pictures / "deer.onnx"
    names = {"names": "['deer']", "end2end": "True"}
    weights.write_bytes(constant_graph({"output0": rows}, 64, names))
    resight("models", "add", weights, "--name", "deer", "--version", "1").ok()
    greys = {f"{grey}.png": np.full((64, 64, 3), grey, np.uint8) for grey in (100, 101, 230)}
    coded = {name: cv2.imencode(".png", grey)[1].tobytes() for name, grey in greys.items()}
    shades = write_files(pictures / "shades", coded)
    seen = pictures / "seen"
    words = ("detect", shades, "--model", "deer@1", "--draw", seen, "--format", "json")
    done = resight(*words)
    assert done.code == 1
    assert "unreadable: 230.png: " in done.err
    assert "holds NaN or infinity" in done.err
    assert [row["image"] for row in json.loads(done.out)] == ["100.png", "101.png"]
    assert set(files_of(seen)) == {"100.png.jpg", "101.png.jpg"}


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
