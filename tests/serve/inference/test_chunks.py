"""Chunks and their answers, packed and unpacked."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.config import Preprocess, Tiling
from model_store.detections import Detections
from model_store.errors import ImageUnreadable, ModelNotReady, Overloaded
from model_store.transform.preprocess import prepare
from serve.inference.chunks import Chunk, pack_answers
from serve.inference.results import ImageResult
from tests.fixtures_local import model_info

MODEL = model_info()
Outcome = tuple[ImageResult, float] | BaseException


def detections(count: int, saturated: bool = False) -> Detections:
    boxes = np.arange(count * 4, dtype=np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.1, count, dtype=np.float32)
    return Detections(boxes, scores, np.arange(count, dtype=np.int32), saturated)


def result(count: int, saturated: bool = False) -> tuple[ImageResult, float]:
    return ImageResult(detections(count, saturated), 3.0, 0.5), 7.0


@pytest.mark.parametrize("counts", [[], [0], [1, 0, 3]])
def test_detections_come_back_image_by_image(counts: list[int]) -> None:
    answer = pack_answers(MODEL, [result(count) for count in counts])
    found = answer.detections()
    assert [len(one) for one in found] == answer.counts.tolist() == counts
    for one, count in zip(found, counts, strict=True):
        want = detections(count)
        np.testing.assert_array_equal(one.boxes_xyxy, want.boxes_xyxy)
        np.testing.assert_array_equal(one.scores, want.scores)
        np.testing.assert_array_equal(one.class_ids, want.class_ids)
    assert answer.errors == (None,) * len(counts)
    assert answer.timings_ms.tolist() == [[7.0, 3.0, 0.5]] * len(counts)


def test_an_image_that_fails_is_empty_and_has_its_reason() -> None:
    outcomes: list[Outcome] = [result(1), ImageUnreadable("cut"), ValueError("odd"), result(2)]
    answer = pack_answers(MODEL, outcomes)
    assert [len(one) for one in answer.detections()] == [1, 0, 0, 2]
    assert answer.errors == (None, "decode: cut", "model: odd", None)
    assert answer.timings_ms[1].tolist() == [0.0, 0.0, 0.0]


def test_saturation_is_kept_for_each_image() -> None:
    answer = pack_answers(MODEL, [result(2, saturated=True), result(2)])
    assert [one.saturated for one in answer.detections()] == [True, False]


@pytest.mark.parametrize("trouble", [ModelNotReady("released"), Overloaded("full"), KeyboardInterrupt()])
def test_trouble_of_the_whole_replica_is_raised(trouble: BaseException) -> None:
    with pytest.raises(type(trouble)):
        pack_answers(MODEL, [result(1), trouble])


SPECS = [
    Preprocess(side_px=16),
    Preprocess(side_px=64, height_px=32, resize="rect"),
    Preprocess(side_px=32, tiling=Tiling(tile_px=32)),
]


@pytest.mark.parametrize("spec", SPECS, ids=["square", "rect", "tiled"])
def test_a_chunk_gives_back_its_images_and_fits(spec: Preprocess) -> None:
    rng = np.random.default_rng(3)
    sizes = [(30 + 7 * i, 40 + 30 * i) for i in range(3)]
    images = [prepare(rng.integers(0, 256, (*s, 3), np.uint8), spec) for s in sizes]
    items = Chunk.of("blobs@1", images).items()
    assert [(i.fits, i.size_px) for i in items] == [(i.fits, i.size_px) for i in images]
    for item, image in zip(items, images, strict=True):
        np.testing.assert_array_equal(item.pixels, image.pixels)
