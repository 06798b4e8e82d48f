"""The detector that peers run: boxes worked out by hand, from graphs whose output is known."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.peers.detector import Detector
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


def test_a_box_ends_where_the_picture_does(tmp_path: Path):
    detect = version(tmp_path, [[(2, 62, 20, 20, 0.0, 0.5)]])
    (found,) = detect(jpeg(64, 64))
    assert found["label"] == "hare"
    assert found["box_xyxy_px"] == [0, 52, 12, 64]


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


def test_at_most_as_many_as_the_config_says_and_the_best_of_them(tmp_path: Path):
    rows = [[(8 * i + 4, 8, 4, 4, 0.2 + i / 10, 0.0) for i in range(5)]]
    detect = version(tmp_path, rows, nms={"iou": 0.5, "max_detections": 2})
    assert [round(one["score"], 1) for one in detect(jpeg(64, 64))] == [0.6, 0.5]


def test_nothing_is_an_empty_list(tmp_path: Path):
    detect = version(tmp_path, [[(8, 8, 4, 4, 0.0, 0.0)]])
    assert detect(jpeg(64, 64)) == []


def test_each_of_a_batch_gets_its_own_answer_and_size(tmp_path: Path):
    dark, red = [(16, 16, 8, 8, 0.9, 0.0)], [(16, 16, 8, 8, 0.0, 0.8)]
    detect = version(tmp_path, [dark] * 128 + [red] * 128)
    pictures = [jpeg(64, 64, (255, 0, 0)), jpeg(128, 64, (0, 0, 255)), jpeg(64, 128, (0, 255, 0))]
    found = detect.batch(pictures)
    assert [one["label"] for (one,) in found] == ["hare", "fox", "fox"]  # red is the first channel
    boxes = [[12, 12, 20, 20], [24, 12, 40, 20], [12, 24, 20, 40]]
    assert [one["box_xyxy_px"] for (one,) in found] == boxes
    assert found == [detect(picture) for picture in pictures]


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff", jpeg(64, 64)[:100]], ids=len)
def test_what_is_no_picture_is_said_to_be_none(tmp_path: Path, data: bytes):
    detect = version(tmp_path, [[(8, 8, 4, 4, 0.9, 0.0)]])
    with pytest.raises(ValueError, match="no picture|JPEG"):
        detect(data)


def test_a_png_is_read_too(tmp_path: Path):
    detect = version(tmp_path, [[(32, 16, 16, 8, 0.9, 0.2)]])
    png = cv2.imencode(".png", np.zeros((32, 128, 3), np.uint8))[1].tobytes()
    assert detect(png)[0]["box_xyxy_px"] == [48, 6, 80, 10]
