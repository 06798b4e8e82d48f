"""The detector that peers run: boxes worked out by hand, from graphs whose output is known."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.peers.detector import Detector, decode
from tests.graphs import constant_graph

SIDE_PX = 64
LABELS = ["fox", "hare"]


def version(folder: Path, rows: list[list[tuple[float, ...]]], **settings: object) -> Detector:
    """Of a graph that answers row `red value of the top left pixel` of `rows`, modulo their number.

    A row is its candidates: centre x, centre y, width, height, score of each label.
    """
    raw = np.array(rows, np.float32).transpose(0, 2, 1)
    (folder / "model.onnx").write_bytes(constant_graph({"out": raw}, SIDE_PX))
    config = {
        "runtime": {"kind": "onnx", "weights": "model.onnx"},
        "preprocess": {"side_px": SIDE_PX},
        "nms": {"iou": 0.5, "max_detections": 10},
        "labels": LABELS,
        "score_floor": 0.1,
    }
    (folder / "config.json").write_text(json.dumps(config | settings))
    return Detector(folder)


def jpeg(width: int, height: int, rgb: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    pixels = np.full((height, width, 3), rgb[::-1], np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def test_a_box_is_in_pixels_of_the_picture(tmp_path: Path):
    # on the square: 24..40 and 12..20; the picture is twice as wide and half as high as the square
    detect = version(tmp_path, [[(32, 16, 16, 8, 0.9, 0.2)]])
    (found,) = detect(jpeg(128, 32))
    assert found["label"] == "fox"
    assert found["score"] == pytest.approx(0.9)
    assert found["box_xyxy_px"] == [48, 6, 80, 10]


def test_a_scaled_picture_has_its_boxes_in_pixels_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    detect = version(tmp_path, [[(32, 16, 16, 8, 0.9, 0.2)]])
    whole = detect(jpeg(1280, 640))
    monkeypatch.setenv("PEER_SCALED", "1")
    assert detect(jpeg(1280, 640)) == whole
    assert decode(jpeg(1280, 640), SIDE_PX)[0].shape == (80, 160, 3)  # an eighth; the smallest scale
    assert decode(jpeg(100, 64), SIDE_PX)[0].shape == (64, 100, 3)


def test_suppression_is_within_a_label_and_keeps_the_best(tmp_path: Path):
    detect = version(
        tmp_path,
        [
            [
                (20, 20, 20, 20, 0.6, 0.0),
                (21, 20, 20, 20, 0.8, 0.0),  # the same fox: 19 of 21 columns are common
                (20, 20, 20, 20, 0.0, 0.7),  # a hare in the same place
                (50, 50, 10, 10, 0.3, 0.0),  # another fox
                (50, 20, 10, 10, 0.09, 0.0),  # below the floor
            ]
        ],
    )
    found = [(one["label"], round(one["score"], 2)) for one in detect(jpeg(64, 64))]
    assert found == [("fox", 0.8), ("hare", 0.7), ("fox", 0.3)]


def test_each_of_a_batch_gets_its_own_answer_and_size(tmp_path: Path):
    dark, red = [(16, 16, 8, 8, 0.9, 0.0)], [(16, 16, 8, 8, 0.0, 0.8)]
    detect = version(tmp_path, [dark] * 128 + [red] * 128)
    pictures = [jpeg(64, 64, (255, 0, 0)), jpeg(128, 64, (0, 0, 255)), jpeg(64, 128, (0, 255, 0))]
    found = detect.batch(pictures)
    assert [one["label"] for (one,) in found] == ["hare", "fox", "fox"]  # red is the first channel
    boxes = [[12, 12, 20, 20], [24, 12, 40, 20], [12, 24, 20, 40]]
    assert [one["box_xyxy_px"] for (one,) in found] == boxes
    assert found == [detect(picture) for picture in pictures]
