"""Detect small objects in large images: overlapping tiles, each resized to the network's input.

image (w, h) --tiles--> (x, y, w, h) of each --detector--> Detections of each, image px --merge--> one

Tiles are spread evenly, with at least the given overlap. If two tiles contain one object, the better box is kept.
Boxes of one tile never drop each other here, since suppression has already run.
Slicing follows SAHI (Akyol et al., 2022); its rule for objects cut by a tile's edge, intersection over the smaller
box, is the default.
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
from model_store.transform.nms import Clashes, containment, greedy, iou

Tile = tuple[int, int, int, int]
MAX_TILES = 1024
"""An image of 100 megapixels in tiles of 512 px with an overlap of a fifth has about 600."""


def tiles(width_px: int, height_px: int, spec: Tiling) -> list[Tile]:
    """Return the tiles row by row, then the whole image if `spec.whole` and there is more than one tile.

    Raises ImageTooLarge over MAX_TILES.
    """
    columns = starts(width_px, spec.tile_px, spec.overlap_frac)
    rows = starts(height_px, spec.tile_px, spec.overlap_frac)
    if len(columns) * len(rows) > MAX_TILES:
        raise ImageTooLarge(
            f"{width_px}x{height_px} makes {len(columns) * len(rows)} tiles of {spec.tile_px} px, "
            f"at most {MAX_TILES} are allowed; use a model with larger tiles"
        )
    width, height = min(width_px, spec.tile_px), min(height_px, spec.tile_px)
    placed = [(x, y, width, height) for y in rows for x in columns]
    if spec.whole and len(placed) > 1:
        placed.append((0, 0, width_px, height_px))
    return placed


def starts(length_px: int, tile_px: int, overlap_frac: float) -> list[int]:
    """Return the starts of tiles on one axis, as few as the overlap allows; the last ends with the image."""
    if length_px <= tile_px:
        return [0]
    step = max(1, math.floor(tile_px * (1 - overlap_frac)))
    count = math.ceil((length_px - tile_px) / step) + 1
    return [round(i * (length_px - tile_px) / (count - 1)) for i in range(count)]


def merge(parts: Sequence[Detections], spec: Tiling, nms: Nms) -> Detections:
    """Merge the detections of all tiles, in image px, to ranked detections of the image."""
    everything = Detections.join(parts)
    order = np.argsort(-everything.scores, kind="stable")
    found = everything.select(order)
    tile = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    boxes = found.boxes_xyxy.astype(np.float64)
    overlap = iou if spec.merge.measure == "iou" else containment

    def clashes(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
        clash = overlap(boxes[rows, np.newaxis], boxes[columns]) > spec.merge.over
        clash &= tile[rows][:, np.newaxis] != tile[columns]
        if nms.class_aware:
            clash &= found.class_ids[rows][:, np.newaxis] == found.class_ids[columns]
        return clash

    kept = greedy(len(found), clashes, nms.max_detections)
    saturated = found.saturated or len(kept) > nms.max_detections
    kept = kept[: nms.max_detections]
    if spec.merge.kind == "union":
        found = replace(found, boxes_xyxy=_hulls(found.boxes_xyxy, kept, clashes))
    return replace(found.select(kept), saturated=saturated).ranked()


def _hulls(boxes: NDArray[np.float32], kept: NDArray[np.intp], clashes: Clashes) -> NDArray[np.float32]:
    """Enlarge each kept box around the dropped ones that clash with it; each enlarges only the best such box.

    Boxes that were cut at max_detections clash with none.
    """
    hulls = boxes.copy()
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    free = np.ones(len(boxes), np.bool_)
    free[kept] = False
    for i in kept:  # best first, only with boxes that touch it: a matrix of all would need gigabytes
        touching = (x1 < x2[i]) & (x2 > x1[i]) & (y1 < y2[i]) & (y2 > y1[i])
        near = np.flatnonzero(touching & free)
        gone = near[clashes(np.array([i]), near)[0]]
        group = boxes[np.append(gone, i)]
        hulls[i] = [*group[:, :2].min(axis=0), *group[:, 2:].max(axis=0)]
        free[gone] = False
    return hulls
