"""Instance masks of prototype heads, assembled at the size of the image, as COCO run lengths.

PrototypeMasks (n coefficients, K prototypes) + boxes in image px + Fit --run_lengths--> RunLengths

A pixel belongs to an object when its centre lies in the box and the mask's logit there is above 0 (its
sigmoid above 0.5). The logit is coefficients @ prototypes, interpolated once, bilinearly, from the
prototypes' grid to the pixels of the image: what Ultralytics calls retina masks
(`process_mask_native`), and finer than masks made at the network's size and scaled up.
Run lengths are COCO's: column by column, zeros first, as a string (pycocotools' `rleToString`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.detections import FloatArray, Index, RunLengths
from model_store.fit import Fit, SizePx

Bitmap = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PrototypeMasks:
    """coefficients (n, K) of detections; prototypes (K, h, w) of the picture the network saw."""

    coefficients: FloatArray
    prototypes: FloatArray
    network_px: SizePx

    def __len__(self) -> int:
        return len(self.coefficients)

    def select(self, index: Index) -> PrototypeMasks:
        return PrototypeMasks(self.coefficients[index], self.prototypes, self.network_px)


class Window(NamedTuple):
    """The pixels of an image whose centres lie in a box."""

    left: int
    top: int
    right: int
    bottom: int


def run_lengths(
    masks: PrototypeMasks, boxes_xyxy: FloatArray, fit: Fit, size_px: SizePx
) -> RunLengths:
    """Masks of boxes (n, 4) in px of an image of `size_px`."""
    counts: list[str] = []
    area_px: list[int] = []
    for coefficients, box in zip(masks.coefficients, boxes_xyxy.tolist(), strict=True):
        logits = np.tensordot(coefficients, masks.prototypes, axes=1)
        window = Window(*(math.ceil(value - 0.5) for value in box))
        bitmap = _sampled(logits, window, fit, masks.network_px) > 0
        counts.append(compressed(runs_of(bitmap, window, size_px)))
        area_px.append(int(bitmap.sum()))
    return RunLengths(tuple(counts), np.array(area_px, np.int64))


def _sampled(logits: NDArray[Any], window: Window, fit: Fit, network_px: SizePx) -> NDArray[Any]:
    """Bilinear, at the centres of the window's pixels; edges are repeated."""
    (height, width), (across, down) = logits.shape, network_px
    x = (np.arange(window.left, window.right) + 0.5 - fit.origin_x_px) * fit.scale_x + fit.left_px
    y = (np.arange(window.top, window.bottom) + 0.5 - fit.origin_y_px) * fit.scale_y + fit.top_px
    left, right, along = _taps(x * width / across - 0.5, width)
    above, below, down_by = _taps(y * height / down - 0.5, height)
    rows = logits[above] * (1 - down_by)[:, np.newaxis] + logits[below] * down_by[:, np.newaxis]
    return rows[:, left] * (1 - along) + rows[:, right] * along


def _taps(
    place: NDArray[np.float64], length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """The cells on both sides of each place, and the weight of the second."""
    place = np.clip(place, 0, length - 1)
    first = np.floor(place).astype(np.intp)
    return first, np.minimum(first + 1, length - 1), (place - first).astype(np.float32)


def runs_of(bitmap: Bitmap, window: Window, size_px: SizePx) -> NDArray[np.int64]:
    """Uncompressed counts of an image that is true where `bitmap` is, and false around it."""
    width, height = size_px
    guarded = np.zeros((bitmap.shape[1], bitmap.shape[0] + 2), np.int8)
    guarded[:, 1:-1] = bitmap.T
    column, row = np.nonzero(np.diff(guarded, axis=1))  # start, end, start, end, …
    place = (column + window.left) * height + row + window.top
    starts, ends = place[0::2], place[1::2]
    apart = starts[1:] != ends[:-1]  # a run may go on at the top of the next column
    bounds = np.empty(2 * int(apart.sum()) + 2 * bool(len(starts)), np.int64)
    bounds[0::2] = starts[np.r_[np.True_, apart][: len(starts)]]
    bounds[1::2] = ends[np.r_[apart, np.True_][: len(ends)]]
    counts = np.diff(bounds, prepend=0, append=width * height)
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def compressed(counts: NDArray[np.int64]) -> str:
    """From the fourth on the difference to the last but one; 5 bits a character, low ones first; bit 5
    says that more follow, bit 4 of the last is the sign; 48 is added.
    """
    values = counts.copy()
    values[3:] -= counts[1:-2]
    text = bytearray()
    for value in values.tolist():
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append(bits + 32 * more + 48)
    return text.decode()


def bitmap_of(text: str, size_px: SizePx) -> Bitmap:
    """(height, width): the mask that was written as `text`. Raises ValueError when it does not fit."""
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
