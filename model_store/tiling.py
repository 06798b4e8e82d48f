"""Small objects in large images: overlapping tiles, each seen at the network's full size.

image (w, h) --tiles--> (x, y, w, h) of each --detector--> Detections of each, image px --merge--> one

Tiles are spread evenly, with at least the overlap that was asked for. Where two tiles saw one object,
the better box stands; boxes of one tile never drop each other here, suppression has seen to them.
Slicing as in SAHI (Akyol et al., 2022), whose rule for objects cut by a tile's edge, intersection over
the smaller box, is the default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_store.config import Nms, Tiling
from model_store.detections import Detections
from model_store.errors import ImageTooLarge
from model_store.nms import Clashes, greedy, intersection, iou

Tile = tuple[int, int, int, int]
MAX_TILES = 1024
"""A picture of 100 megapixels in tiles of 512 px with a fifth of overlap has about 600."""


def tiles(width_px: int, height_px: int, spec: Tiling) -> list[Tile]:
    """Row by row; the whole image last, where it is wanted and more than one tile.

    Raises ImageTooLarge over MAX_TILES.
    """
    columns = starts(width_px, spec.tile_px, spec.overlap_frac)
    rows = starts(height_px, spec.tile_px, spec.overlap_frac)
    if len(columns) * len(rows) > MAX_TILES:
        raise ImageTooLarge(
            f"{width_px}x{height_px} makes {len(columns) * len(rows)} tiles of {spec.tile_px} px, "
            f"at most {MAX_TILES} are allowed; a model with larger tiles can see it"
        )
    width, height = min(width_px, spec.tile_px), min(height_px, spec.tile_px)
    found = [(x, y, width, height) for y in rows for x in columns]
    if spec.whole and len(found) > 1:
        found.append((0, 0, width_px, height_px))
    return found


def starts(length_px: int, tile_px: int, overlap_frac: float) -> list[int]:
    """Where tiles begin on one axis: as few as the overlap allows, the last ending with the image."""
    if length_px <= tile_px:
        return [0]
    step = max(1, math.floor(tile_px * (1 - overlap_frac)))
    count = math.ceil((length_px - tile_px) / step) + 1
    return [round(i * (length_px - tile_px) / (count - 1)) for i in range(count)]


def merge(parts: Sequence[Detections], spec: Tiling, nms: Nms) -> Detections:
    """Detections of all tiles, in image px, as those of the image, ranked."""
    everything = Detections.join(parts)
    order = np.argsort(-everything.scores, kind="stable")
    found = everything.select(order)
    tile = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    boxes = found.boxes_xyxy.astype(np.float64)

    def clashes(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
        clash = _overlap(boxes[rows], boxes[columns], spec) > spec.merge.over
        clash &= tile[rows][:, np.newaxis] != tile[columns]
        if nms.class_aware:
            clash &= found.class_ids[rows][:, np.newaxis] == found.class_ids[columns]
        return clash

    kept = greedy(len(found), clashes, nms.max_detections)
    saturated = found.saturated or len(kept) > nms.max_detections
    kept = kept[: nms.max_detections]
    if spec.merge.kind == "union":
        found = found.with_boxes(_hulls(found.boxes_xyxy, kept, clashes))
    return replace(found.select(kept), saturated=saturated).ranked()


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64], spec: Tiling) -> NDArray[np.float64]:
    if spec.merge.measure == "iou":
        return iou(a, b)
    inter, area_a, area_b = intersection(a, b)
    smaller = np.minimum(area_a, area_b)
    return np.divide(inter, smaller, out=np.zeros_like(inter), where=smaller > 0)


def _hulls(
    boxes: NDArray[np.float32], kept: NDArray[np.intp], clashes: Clashes
) -> NDArray[np.float32]:
    """Each dropped box enlarges the best kept one that it clashes with; those that were cut off at
    max_detections clash with none.
    """
    hulls = boxes.copy()
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    free = np.ones(len(boxes), np.bool_)
    free[kept] = False
    for i in kept:  # best first, with what touches it: a matrix of all would be gigabytes
        touching = (x1 < x2[i]) & (x2 > x1[i]) & (y1 < y2[i]) & (y2 > y1[i])
        near = np.flatnonzero(touching & free)
        gone = near[clashes(np.array([i]), near)[0]]
        group = boxes[np.append(gone, i)]
        hulls[i] = [*group[:, :2].min(axis=0), *group[:, 2:].max(axis=0)]
        free[gone] = False
    return hulls
