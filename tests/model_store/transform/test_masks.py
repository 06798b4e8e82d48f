"""Compare run lengths of masks with pycocotools, and their pixels with the oracle's loops."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from model_store.detections import Detections, RunLengths
from model_store.transform.letterbox import Fit, Resize, fit
from model_store.transform.masks import PrototypeMasks, Runs, bitmap_of, compressed, counts_of, run_lengths
from tests.oracles import masks as oracle

sizes_px = st.tuples(st.integers(1, 24), st.integers(1, 24))
KINDS: tuple[Resize, ...] = ("letterbox", "rect", "stretch", "fit_top_left")


def decoded(counts: str, size_px: tuple[int, int]) -> NDArray[np.bool_]:
    width, height = size_px
    return coco.decode({"size": [height, width], "counts": counts.encode()}).astype(np.bool_)


def runs_of(image: NDArray[np.bool_]) -> Runs:
    """Return runs column by column; a run that continues in the next column counts as two."""
    columns = [np.flatnonzero(np.diff(column, prepend=False, append=False)) for column in image.T]
    places = [edges + i * len(image) for i, edges in enumerate(columns)]
    return Runs(*(np.concatenate([p[k::2] for p in places]).astype(np.int64) for k in (0, 1)))


@given(sizes_px, st.data(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2, 0.8, 1.0]))
@settings(deadline=None, max_examples=80)
def test_run_lengths_are_cocos(size_px: tuple[int, int], data: st.DataObject, seed: int, share: float) -> None:
    width, height = size_px
    left, right = sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2)))
    top, bottom = sorted(data.draw(st.tuples(*[st.integers(0, height)] * 2)))
    bitmap = np.random.default_rng(seed).random((bottom - top, right - left)) < share
    image = np.zeros((height, width), np.bool_)
    image[top:bottom, left:right] = bitmap
    counts = counts_of(runs_of(image), size_px)
    wanted = coco.encode(np.asfortranarray(image.astype(np.uint8)))["counts"].decode()
    assert compressed(counts) == wanted == oracle.compress(oracle.run_lengths(image))
    assert (decoded(wanted, size_px) == image).all()
    assert (bitmap_of(wanted, size_px) == image).all()


def case(seed: int, kind: Resize, size_px: tuple[int, int]) -> tuple[PrototypeMasks, NDArray[np.float32], Fit]:
    rng = np.random.default_rng(seed)
    placed = fit(kind, size_px, (64, 64), 32)
    canvas = (64, 64)
    prototypes = rng.standard_normal((4, 16, 16)).astype(np.float32)
    coefficients = rng.standard_normal((5, 4)).astype(np.float32)
    corners = np.sort(rng.random((5, 2, 2)), axis=1) * size_px
    return (PrototypeMasks(coefficients, prototypes, canvas), corners.reshape(5, 4).astype(np.float32), placed)


def test_masks_of_a_tile_lie_where_the_tile_lies() -> None:
    masks, boxes, placed = case(7, "letterbox", (64, 64))
    tile = replace(placed, origin_x_px=30, origin_y_px=10)
    whole = run_lengths(masks, boxes, placed, (64, 64))
    moved = run_lengths(masks, boxes + np.float32([30, 10, 30, 10]), tile, (120, 90))
    assert (moved.area_px == whole.area_px).all()
    for there, here in zip(moved.counts, whole.counts, strict=True):
        assert (decoded(there, (120, 90))[10:74, 30:94] == decoded(here, (64, 64))).all()


def test_masks_follow_their_detections() -> None:
    masks = RunLengths(("a", "b", "c"), np.array([1, 2, 3]))
    found = Detections(
        np.zeros((3, 4), np.float32), np.array([0.1, 0.9, 0.5], np.float32), np.zeros(3, np.int32), masks=masks
    )
    ranked = found.ranked().masks
    assert isinstance(ranked, RunLengths)
    assert (ranked.counts, ranked.area_px.tolist()) == (("b", "c", "a"), [2, 3, 1])
    joined = Detections.join([found, Detections.empty(), found.select(np.array([True, False, True]))])
    assert isinstance(joined.masks, RunLengths)
    assert joined.masks.counts == ("a", "b", "c", "a", "c")
    with pytest.raises(ValueError, match="3 masks do not match 2 scores"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.zeros(2, np.int32), masks=masks)


def test_a_pixel_belongs_to_a_box_by_its_centre() -> None:
    everywhere = PrototypeMasks(np.ones((1, 1), np.float32), np.ones((1, 4, 4), np.float32), (8, 8))
    box = np.array([[0.5, 1.6, 3.4, 3.5]], np.float32)
    (counts,) = run_lengths(everywhere, box, fit("stretch", (8, 8), (8, 8)), (8, 8)).counts
    rows, columns = np.nonzero(decoded(counts, (8, 8)))
    assert (set(rows), set(columns)) == ({2}, {0, 1, 2})
    assert math.isclose(box[0, 0], 0.5)


def test_windows_of_any_size_are_the_oracles() -> None:
    """Test images much finer and coarser than the prototypes' grid, and boxes beyond it on all sides."""
    rng = np.random.default_rng(11)
    for kind in KINDS:
        for size_px in ((64, 64), (90, 37), (5, 7), (64, 200), (400, 9)):
            placed = fit(kind, size_px, (64, 64), 32)
            prototypes = rng.standard_normal((3, 16, 16)).astype(np.float32)
            coefficients = rng.standard_normal((6, 3)).astype(np.float32)
            corners = np.sort(rng.uniform(-0.2, 1.2, (6, 2, 2)).clip(0, 1), axis=1) * size_px
            boxes = corners.reshape(6, 4).astype(np.float32)
            masks = PrototypeMasks(coefficients, prototypes, (64, 64))
            found = run_lengths(masks, boxes, placed, size_px)
            wanted = oracle.native_masks(
                coefficients,
                prototypes,
                boxes,
                size_px,
                (placed.scale_x, placed.scale_y, placed.left_px, placed.top_px),
                (64, 64),
            )
            for counts, area, want in zip(found.counts, found.area_px, wanted, strict=True):
                have = decoded(counts, size_px)
                assert have.sum() == area
                assert (have != want).sum() <= 1e-3 * want.size + 1


def large() -> tuple[PrototypeMasks, NDArray[np.float32], Fit]:
    """Measure ten round objects in an image of 12 megapixels."""
    y, x = np.mgrid[:160, :160]
    prototypes = np.stack([70.0**2 - (x - 80) ** 2 - (y - 80) ** 2] * 32).astype(np.float32)
    masks = PrototypeMasks(np.full((10, 32), 0.01, np.float32), prototypes, (640, 640))
    boxes = np.array([[100, 100, 3900, 2900]] * 10, np.float32)
    return masks, boxes, fit("letterbox", (4000, 3000), (640, 640))


def test_large_masks_are_made_without_a_picture_of_logits() -> None:
    masks, boxes, placed = large()
    tracemalloc.start()
    found = run_lengths(masks, boxes, placed, (4000, 3000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 8e6 < found.area_px[0] < 10.7e6
    assert peak < 40e6  # one float32 per pixel would be 48 MB


def test_logits_beyond_all_sense_make_a_mask_all_the_same() -> None:
    masks, boxes, placed = case(3, "stretch", (64, 64))
    for huge in (3e38, 1e30):
        with np.errstate(all="ignore"):
            most = PrototypeMasks(masks.coefficients * huge, masks.prototypes, (64, 64))
        most = PrototypeMasks(np.nan_to_num(most.coefficients), most.prototypes * np.float32(1e3), (64, 64))
        found = run_lengths(most, boxes, placed, (64, 64))
        for counts, area in zip(found.counts, found.area_px, strict=True):
            assert decoded(counts, (64, 64)).sum() == area
