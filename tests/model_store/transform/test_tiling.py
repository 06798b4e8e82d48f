"""Compare tiles of a large image, and objects in several of them, with the oracle."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.config import Nms, Preprocess, Tiling
from model_store.detections import Detections
from model_store.errors import ImageTooLarge
from model_store.transform.letterbox import fit
from model_store.transform.preprocess import prepare
from model_store.transform.tiling import merge, tiles
from tests.model_store.test_detections import detections, rows_of
from tests.oracles import tiling as oracle
from tests.oracles.anchor_decoders import Box
from tests.oracles.geometry import resize_picture

lengths_px = st.integers(1, 1500)
tilings = st.builds(
    Tiling,
    tile_px=st.integers(200, 1500),
    overlap_frac=st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5, 0.75]),
    whole=st.booleans(),
)


@given(lengths_px, lengths_px, tilings)
@settings(deadline=None, max_examples=80)
def test_the_tiles_are_the_oracles(width: int, height: int, spec: Tiling) -> None:
    found = tiles(width, height, spec)
    assert found == oracle.tiles(width, height, spec.tile_px, spec.overlap_frac, spec.whole)
    seen = np.zeros((height, width), np.bool_)
    for x, y, w, h in found[: len(found) - spec.whole or None]:
        assert w <= spec.tile_px
        assert h <= spec.tile_px
        seen[y : y + h, x : x + w] = True
    assert seen.all()


def test_an_image_of_too_many_tiles_is_refused() -> None:
    with pytest.raises(ImageTooLarge, match="makes 10000 tiles of 100 px, at most 1024"):
        tiles(10_000, 10_000, Tiling(tile_px=100, overlap_frac=0))


def test_tiles_are_cut_and_resized_as_pictures_of_their_own() -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 260, 3), np.uint8)
    spec = Preprocess(side_px=64, tiling=Tiling(tile_px=100))
    prepared = prepare(image, spec)
    assert spec.tiling is not None
    cut = oracle.tiles(260, 150, 100, 0.2, whole=True)
    assert len(prepared.fits) == len(prepared.pixels) == len(cut) == 7
    for (x, y, w, h), pixels, placed in zip(cut, prepared.pixels, prepared.fits, strict=True):
        piece = np.ascontiguousarray(image[y : y + h, x : x + w])
        assert (pixels == resize_picture(piece, "letterbox", 64, 64)).all()
        assert (placed.origin_x_px, placed.origin_y_px) == (x, y)
        plain = fit("letterbox", (w, h), (64, 64))
        assert (placed.scale_x, placed.left_px, placed.top_px) == (plain.scale_x, plain.left_px, plain.top_px)


corners = st.integers(0, 6).map(float)
spans = st.integers(0, 4).map(float)
boxes = st.tuples(corners, corners, spans, spans).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
rows = st.tuples(st.sampled_from([0.25, 0.5, 0.75]), st.integers(0, 2), boxes)
parts_of = st.lists(st.lists(rows, max_size=8), min_size=1, max_size=5)


@given(
    parts_of,
    st.sampled_from(["suppress", "union"]),
    st.sampled_from(["iou", "smaller"]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.booleans(),
    st.integers(1, 30),
)
@settings(deadline=None, max_examples=80)
def test_merging_is_the_oracles(
    parts: list[list[tuple[float, int, tuple[float, ...]]]],
    kind: str,
    measure: str,
    over: float,
    aware: bool,
    most: int,
) -> None:
    spec = Tiling.model_validate({"tile_px": 100, "merge": {"kind": kind, "measure": measure, "over": over}})
    nms = Nms(class_aware=aware, max_detections=most)
    found = merge([detections(part) for part in parts], spec, nms)
    plain = [[Box(*box, score, class_id) for score, class_id, box in part] for part in parts]
    wanted, saturated = oracle.merge(plain, kind, measure, over, aware, most)
    expected = detections([(b.score, b.class_id, (b.x1, b.y1, b.x2, b.y2)) for b in wanted])
    assert rows_of(found) == rows_of(expected.ranked())
    assert found.saturated == saturated


def test_saturation_of_a_tile_is_that_of_the_image() -> None:
    full = Detections(np.zeros((0, 4), np.float32), *empty_columns(), saturated=True)
    assert merge([Detections.empty(), full], Tiling(tile_px=100), Nms()).saturated


def empty_columns() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(0, np.float32), np.zeros(0, np.int32)


def test_boxes_of_hundreds_of_tiles_grow_in_little_memory() -> None:
    """A matrix of all kept and all dropped boxes would need hundreds of megabytes."""
    rng = np.random.default_rng(0)
    parts: list[Detections] = []
    for i in range(100):
        start = rng.uniform(0, 400, (300, 2)) + np.array([i % 10, i // 10]) * 320
        box = np.hstack([start, start + rng.uniform(8, 30, (300, 2))]).astype(np.float32)
        parts.append(Detections(box, rng.random(300, np.float32), np.zeros(300, np.int32)))
    spec = Tiling.model_validate({"tile_px": 400, "merge": {"kind": "union"}})
    tracemalloc.start()
    merge(parts, spec, Nms())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6
