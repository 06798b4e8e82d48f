"""Assemble instance masks of prototype heads at the size of the image, as COCO run lengths.

PrototypeMasks (n coefficients, K prototypes) + boxes in image px + Fit --run_lengths--> RunLengths

A pixel belongs to an object if its centre lies in the box and the mask's logit there is above 0 (its
sigmoid above 0.5). The logit is coefficients @ prototypes, interpolated once, bilinearly, from the
prototypes' grid to the pixels of the image by the exact Fit. Ultralytics' retina masks
(`process_mask_native`) first cut the padding in whole cells of that grid, which shifts them slightly.
Run lengths are COCO's: column by column, zeros first, as a string (pycocotools' `rleToString`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.detections import FloatArray, Index, RunLengths
from model_store.transform.letterbox import Fit, SizePx

Bitmap = NDArray[np.bool_]
MOST = np.float32(1e30)
"""Bound of a logit, so that sums and differences of two stay finite; only invalid logits are larger."""


@dataclass(frozen=True, slots=True, eq=False)
class PrototypeMasks:
    """Coefficients (n, K) of detections, and prototypes (K, h, w) of the network's input."""

    coefficients: FloatArray
    prototypes: FloatArray
    network_px: SizePx

    def __len__(self) -> int:
        return len(self.coefficients)

    def select(self, index: Index) -> PrototypeMasks:
        return PrototypeMasks(self.coefficients[index], self.prototypes, self.network_px)


class Window(NamedTuple):
    """The pixels of an image that have their centres in a box."""

    left: int
    top: int
    right: int
    bottom: int


class Runs(NamedTuple):
    """Pixels inside a mask, counted column by column: from each start, in order, up to its end (exclusive)."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def run_lengths(masks: PrototypeMasks, boxes_xyxy: FloatArray, fit: Fit, size_px: SizePx) -> RunLengths:
    """Return the masks of boxes (n, 4) in px of an image of `size_px`."""
    counts: list[str] = []
    area_px: list[int] = []
    for i, box in enumerate(boxes_xyxy.tolist()):
        window = Window(*(math.ceil(value - 0.5) for value in box))
        runs = _runs(masks, i, window, fit, size_px)
        counts.append(compressed(counts_of(runs, size_px)))
        area_px.append(int((runs.ends - runs.starts).sum()))
    return RunLengths(tuple(counts), np.array(area_px, np.int64))


def _runs(masks: PrototypeMasks, index: int, window: Window, fit: Fit, size_px: SizePx) -> Runs:
    """Return the runs where the mask of one detection is above 0, bilinear with repeated edges.

    Logits are computed at every column of the window's pixels, but only at the rows of the prototypes' grid:
    between two of them a column's logit is a straight line, and a run starts or ends where it crosses 0.
    """
    if window.right <= window.left or window.bottom <= window.top:
        return Runs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    (_, high, wide), (across, down) = masks.prototypes.shape, masks.network_px
    columns, ends = np.arange(window.left, window.right), np.array([window.top, window.bottom - 1])
    x = (columns + 0.5 - fit.origin_x_px) * fit.scale_x + fit.left_px
    y = (ends + 0.5 - fit.origin_y_px) * fit.scale_y + fit.top_px
    left, right, along = _taps(x * wide / across - 0.5, wide)
    above, below, _ = _taps(y * high / down - 0.5, high)
    part = masks.prototypes[:, above[0] : below[1] + 1, left[0] : right[-1] + 1]
    logits = np.tensordot(masks.coefficients[index], part, axes=1).T
    logits = np.clip(np.nan_to_num(logits), -MOST, MOST)
    logits = logits[left - left[0]] * (1 - along) + logits[right - left[0]] * along
    column, cell, row = _crossings(logits)
    pixel = ((above[0] + row + 0.5) * down / high - fit.top_px) / fit.scale_y
    pixel += fit.origin_y_px - 0.5
    pixel[cell == 0], pixel[cell == logits.shape[1]] = -np.inf, np.inf  # the run touches an edge
    starts, stops = np.floor(pixel[0::2]) + 1, np.ceil(pixel[1::2])
    starts, stops = (np.clip(p, window.top, window.bottom).astype(np.int64) for p in (starts, stops))
    base = (column[0::2] + window.left) * size_px[1]
    nonempty = starts < stops
    return Runs((base + starts)[nonempty], (base + stops)[nonempty])


def _crossings(logits: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Find the crossings of 0, alternately rising and falling, in columns (columns, rows) of logits.

    Returns the column of each, the row after it, and its fractional row. Logits outside count as below 0.
    """
    over = np.zeros((len(logits), logits.shape[1] + 2), np.int8)
    over[:, 1:-1] = logits > 0
    column, cell = np.nonzero(np.diff(over, axis=1))
    before = logits[column, np.maximum(cell - 1, 0)].astype(np.float64)
    after = logits[column, np.minimum(cell, logits.shape[1] - 1)]
    share = before / np.where(before == after, 1.0, before - after)
    return column, cell, cell - 1 + share


def _taps(place: NDArray[np.float64], length: int) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """Return the cells on both sides of each place, and the weight of the second, (n, 1)."""
    place = np.clip(place, 0, length - 1)
    first = np.floor(place).astype(np.intp)
    weight = (place - first).astype(np.float32)[:, np.newaxis]
    return first, np.minimum(first + 1, length - 1), weight


def counts_of(runs: Runs, size_px: SizePx) -> NDArray[np.int64]:
    """Return the uncompressed counts of a bitmap that is true in the runs and false elsewhere."""
    starts, ends = runs
    apart = starts[1:] != ends[:-1]  # a run may continue at the top of the next column
    bounds = np.empty(2 * int(apart.sum()) + 2 * bool(len(starts)), np.int64)
    bounds[0::2] = starts[np.r_[np.True_, apart][: len(starts)]]
    bounds[1::2] = ends[np.r_[apart, np.True_][: len(ends)]]
    counts = np.diff(bounds, prepend=0, append=size_px[0] * size_px[1])
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def compressed(counts: NDArray[np.int64]) -> str:
    """Return counts in COCO's compressed form.

    From the fourth count on, the difference to the second last is written. A character holds 5 bits, low ones first,
    plus 48; bit 5 marks that more follow, bit 4 of the last character is the sign.
    """
    values = counts.copy()
    values[3:] -= counts[1:-2]
    characters: list[NDArray[np.int64]] = []
    written: list[NDArray[np.bool_]] = [np.ones(len(values), np.bool_)]
    while written[-1].any():
        bits = values & 31
        values >>= 5
        more = written[-1] & (values != np.where(bits & 16, -1, 0))
        characters.append(bits + 32 * more + 48)
        written.append(more)
    table = np.stack(characters, axis=1)
    return table[np.stack(written[:-1], axis=1)].astype(np.uint8).tobytes().decode()


def bitmap_of(text: str, size_px: SizePx) -> Bitmap:
    """Return the mask (height, width) of COCO run lengths. Raises ValueError if `text` does not fit the size."""
    counts: list[int] = []
    value = shift = 0
    for byte in text.encode():
        bits = byte - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    width, height = size_px
    column_by_column = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return column_by_column.reshape(width, height).T
