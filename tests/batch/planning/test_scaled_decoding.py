"""Test the gain of scaled decoding: the pictures that are measured, and the boxes that change."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from batch.planning.scaled_decoding import BoxChanges, compare, frequent_jpegs, measure
from model_store.detections import Detections
from model_store.images.header import read_header
from model_store.load import load_detector
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.tune.plan import useful_shrink
from tests.fixtures_local import MODELS, encoded, photo, write_files

FULL_SIZE = Detections(
    np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], np.float32),
    np.array([0.9, 0.8, 0.1], np.float32),
    np.array([1, 2, 1], np.int32),
)


def enlarged(name: str, width: int) -> bytes:
    pixels = cv2.imdecode(np.frombuffer(photo(name), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return cv2.imencode(".jpg", cv2.resize(pixels, (width, width * 3 // 4)))[1].tobytes()


def plain(width: int, height: int, shade: int = 90) -> bytes:
    return encoded(np.full((height, width, 3), shade, np.uint8), "JPEG")


def test_boxes_are_matched_within_their_class() -> None:
    shrunken = Detections(
        np.array([[20, 20, 30, 30], [0, 0, 10, 8]], np.float32),
        np.array([0.8, 0.7], np.float32),
        np.array([1, 1], np.int32),
    )
    found = compare(0.5, [FULL_SIZE, FULL_SIZE], [shrunken, Detections.empty()])
    assert (found.boxes, found.matched) == (4, 1)
    assert (found.median_iou, found.mean_score_shift) == pytest.approx((0.8, 0.2))
    assert compare(0.95, [FULL_SIZE], [shrunken]) == BoxChanges(0, 0, 0.0, 0.0)


def test_pictures_are_whole_jpegs_of_the_most_frequent_size(tmp_path: Path) -> None:
    frequent = {f"a/{i}.jpg": plain(64, 48, i) for i in range(6)}
    others = {f"b/{i}.jpg": plain(48, 64, i) for i in range(5)} | {"b/no.jpg": b"no picture", "b/cut.jpg": b"\xff\xd8"}
    tables = Tables(str(tmp_path / "tables"))
    ingest(tables, str(write_files(tmp_path / "archive", frequent | others)))
    found = frequent_jpegs(tables)
    assert len(set(found)) == 4
    assert set(found) <= set(frequent.values())
    assert frequent_jpegs(tables) == found


def test_without_an_archive_there_are_no_pictures(tmp_path: Path) -> None:
    assert frequent_jpegs(Tables(str(tmp_path / "tables"))) == []


def test_the_shipped_model_keeps_its_boxes_at_a_quarter() -> None:
    detector = load_detector(ModelStore(str(MODELS)), VersionId("ssdlite-coco", "1"))
    pictures = [enlarged(name, 2048) for name in ("cat", "moose")]
    factor = useful_shrink(detector.config.preprocess, pictures)
    assert factor is not None
    found = measure(detector, pictures, factor)
    assert (found.factor, found.size_px, found.pictures) == (4, (2048, 1536), 2)
    assert found.changes.boxes == found.changes.matched > 0
    assert 0.8 < found.changes.median_iou < 1.0  # other pixels, so other boxes
    assert read_header(pictures[0]).width_px == 2048
    assert f"{found.changes.boxes} boxes in 2 pictures" in str(found)
