"""Test the crops of one image and their chunks: expected pixels, an error code for each detection of a bad image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batch.pipeline.read_image
from batch.crops.model_rows import Crop
from batch.crops.model_stage import CHUNK_CROPS, crops_of, in_chunks
from model_store.config import Preprocess
from tests.batch.box_bench import picture
from tests.fixtures_local import encoded, write_files

SPEC = Preprocess(resize="stretch", side_px=20)
MAX_PIXELS = 1_000_000


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.pipeline.read_image._read.retry, "sleep", lambda _: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "archive", {"note.txt": b"somebody's"})


def planned(root: Path, data: bytes, *boxes: tuple[float, ...], **more: Any) -> dict[str, Any]:
    write_files(root, {"a": data})
    sides = ("x1_px", "y1_px", "x2_px", "y2_px")
    found = [{"rank": 2 * i, "replaces": i == 1} | dict(zip(sides, box, strict=True)) for i, box in enumerate(boxes)]
    row = {"media_sha256": hashlib.sha256(data).hexdigest(), "source_root": str(root), "path": "a"}
    return row | {"width_px": 60, "height_px": 40, "boxes": found} | more


@pytest.mark.parametrize(
    ("box", "margin_frac", "corners"),
    [
        ((10.2, 10.9, 29.1, 19.5), 0.0, (10, 10, 30, 20)),  # every pixel that the box touches
        ((10.0, 10.0, 30.0, 20.0), 0.1, (8, 8, 32, 22)),  # a tenth of the longer side, 20
        ((0.0, 0.0, 30.0, 20.0), 0.5, (0, 0, 45, 35)),  # the image ends at 0
        ((60.0, 40.0, 60.0, 40.0), 0.0, (59, 39, 60, 40)),  # no area: a pixel of the image
    ],
)
def test_a_crop_is_the_box_with_its_margin_inside_the_image(
    root: Path, box: tuple[float, ...], margin_frac: float, corners: tuple[int, int, int, int]
) -> None:
    row = planned(root, encoded(picture(3), "PNG"), box)
    left, top, right, bottom = corners
    size = Preprocess(resize="stretch", side_px=right - left, height_px=bottom - top)
    (crop,) = crops_of(row, size, margin_frac, MAX_PIXELS)  # the size of the network: no resize
    assert crop.corners == corners
    assert crop.input is not None
    assert np.array_equal(crop.input, picture(3)[top:bottom, left:right])


def test_an_image_is_read_once_for_all_of_its_crops(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    inner = batch.pipeline.read_image._bytes_of
    monkeypatch.setattr(batch.pipeline.read_image, "_bytes_of", lambda *a: (read.append(a[2]), inner(*a))[1])
    boxes = ((0.0, 0.0, 20.0, 20.0), (20.0, 0.0, 40.0, 20.0), (0.0, 0.0, 60.0, 40.0))
    crops = crops_of(planned(root, encoded(picture(1), "PNG"), *boxes), SPEC, 0.0, MAX_PIXELS)
    assert read == ["a"]
    assert [(c.rank, c.replaces) for c in crops] == [(0, False), (2, True), (4, False)]
    assert all(c.input is not None and c.input.shape == (20, 20, 3) for c in crops)
    assert np.array_equal(crops[0].input, picture(1)[:20, :20])  # type: ignore[arg-type]
    assert np.array_equal(crops[1].input, picture(1)[:20, 20:40])  # type: ignore[arg-type]
    times = [c.read_ms + c.decode_ms for c in crops]
    assert times[0] > 0
    assert times[1:] == [0, 0]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"path": "gone"}, "access", "gone"),
        ({"media_sha256": "f" * 64}, "changed", "run 'resight ingest' again"),
        ({"width_px": 61}, "crop", "the image is 60x40, but was 61x40"),
    ],
)
def test_an_image_without_crops_has_a_code_for_each_detection(
    root: Path, change: dict[str, Any], code: str, words: str
) -> None:
    boxes = ((0.0, 0.0, 9.0, 9.0), (9.0, 0.0, 20.0, 9.0))
    row = planned(root, encoded(picture(1), "PNG"), *boxes) | change
    crops = crops_of(row, SPEC, 0.0, MAX_PIXELS)
    assert [(c.rank, c.error_code, c.input, c.corners) for c in crops] == [(0, code, None, None), (2, code, None, None)]
    assert words in str(crops[0].error_detail)
    assert str(root) not in str(crops[0].error_detail)


def test_a_call_takes_no_more_crops_than_go_into_a_chunk() -> None:
    def many(count: int, side_px: int) -> list[int]:
        one = Crop("a", 0, False, input=np.zeros((side_px, side_px, 3), np.uint8))
        return [len(some) for some in in_chunks(iter([one] * count))]

    assert many(2 * CHUNK_CROPS + 1, 8) == [CHUNK_CROPS, CHUNK_CROPS, 1]
    assert many(5, 2048) == [2, 2, 1]  # of 12 MiB each, and 32 MiB in a chunk
    assert many(2, 4096) == [1, 1]
    assert many(0, 8) == []
    failed = Crop("a", 0, False, error_code="decode")
    assert [len(some) for some in in_chunks(iter([failed] * 3))] == [3]
