"""Instance masks from prototypes, and COCO run lengths, with plain loops in float64.

coeffs (k, K), protos (K, mh, mw), boxes (k, 4) x1, y1, x2, y2 in network px
  --square_logits-->  (k, side, side): coeff @ proto, bilinear (align_corners=False, no antialias)
  --instance_masks-->  (k, h, w) bool in image px: logits > 0 inside the box, padding cut, resized
coeffs, protos, boxes in image px, the placement of the image in a network input of any shape
  --native_masks-->  (k, h, w) bool: coeff @ proto sampled once under each image pixel's centre

A pixel is inside a box when its centre is: x1 <= x + 0.5 < x2. The sigmoid is left out: it is above
0.5 where the logit is above 0. Boundary pixels depend on the order of things; `back` says which:

`nearest`        threshold in the square, then take the pixel under each image pixel's centre
`nearest_floor`  the same with cv2.INTER_NEAREST's rule: pixel floor(x * new_w / w)
`linear`         threshold in the square, then bilinear over 0 and 1, true above 0.5
`logits`         bilinear over the logits, 0 outside the box, threshold last
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tests.oracles.geometry import PLACE, Box, Geometry

Plane = list[list[float]]
Back = Literal["nearest", "nearest_floor", "linear", "logits"]


def taps(size: int, new_size: int) -> list[tuple[int, int, float]]:
    """For each new pixel the two old ones around its centre, and the weight of the second."""
    found: list[tuple[int, int, float]] = []
    for index in range(new_size):
        place = max(0.0, (index + 0.5) * size / new_size - 0.5)
        first = min(math.floor(place), size - 1)
        second = min(first + 1, size - 1)
        found.append((first, second, place - first if second > first else 0.0))
    return found


def bilinear(plane: Plane, w: int, h: int) -> Plane:
    """Half-pixel centres, edges repeated: cv2.INTER_LINEAR, torch with align_corners=False."""
    columns = taps(len(plane[0]), w)
    result: Plane = []
    for top, bottom, down in taps(len(plane), h):
        line: list[float] = []
        for left, right, along in columns:
            above = plane[top][left] * (1 - along) + plane[top][right] * along
            below = plane[bottom][left] * (1 - along) + plane[bottom][right] * along
            line.append(above * (1 - down) + below * down)
        result.append(line)
    return result


def nearest(plane: Plane, w: int, h: int, centre: float) -> Plane:
    """Pixel floor((x + centre) * old / new), at most the last."""
    old_h, old_w = len(plane), len(plane[0])
    rows = [min(old_h - 1, math.floor((y + centre) * old_h / h)) for y in range(h)]
    columns = [min(old_w - 1, math.floor((x + centre) * old_w / w)) for x in range(w)]
    return [[plane[row][column] for column in columns] for row in rows]


def small_logits(coeffs: NDArray[np.floating], protos: NDArray[np.floating]) -> list[Plane]:
    """coeff @ proto of each instance, mh x mw."""
    layers = protos.astype(np.float64).tolist()
    mh, mw = protos.shape[1:]
    planes: list[Plane] = []
    for weights in coeffs.astype(np.float64).tolist():
        plane: Plane = []
        for y in range(mh):
            plane.append(
                [sum(weight * layer[y][x] for weight, layer in zip(weights, layers, strict=True)) for x in range(mw)]
            )
        planes.append(plane)
    return planes


def square_logits(coeffs: NDArray[np.floating], protos: NDArray[np.floating], side_px: int) -> list[Plane]:
    """coeff @ proto of each instance at the network's side."""
    return [bilinear(plane, side_px, side_px) for plane in small_logits(coeffs, protos)]


def inside(box: Box, x: int, y: int) -> bool:
    """Whether the pixel's centre lies in the box."""
    x1, y1, x2, y2 = box
    return x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2


def instance_masks(
    coeffs: NDArray[np.float32],
    protos: NDArray[np.float32],
    boxes: NDArray[np.float32],
    size_wh: tuple[int, int],
    side_px: int,
    *,
    geometry: Geometry = "letterbox",
    back: Back = "nearest",
) -> NDArray[np.bool_]:
    """(k, h, w) masks of an image of `size_wh` that was laid into the square by `geometry`."""
    w, h = size_wh
    new_w, new_h, left, top = PLACE[geometry](w, h, side_px)[:4]
    masks = np.zeros((len(coeffs), h, w), np.bool_)
    planes = square_logits(coeffs, protos, side_px)
    for mask, plane, box in zip(masks, planes, boxes.astype(np.float64).tolist(), strict=True):
        cut: Plane = []
        for y in range(top, top + new_h):
            line: list[float] = []
            for x in range(left, left + new_w):
                logit = plane[y][x] if inside(box, x, y) else 0.0
                line.append(logit if back == "logits" else float(logit > 0))
            cut.append(line)
        if back in ("nearest", "nearest_floor"):
            mask[:] = np.array(nearest(cut, w, h, 0.5 if back == "nearest" else 0.0)) > 0.5
        else:
            mask[:] = np.array(bilinear(cut, w, h)) > (0 if back == "logits" else 0.5)
    return masks


def sample(plane: Plane, p: float, q: float) -> float:
    """Bilinear between the values of the plane, which stand at whole (p, q) = (column, row)."""
    left, top = math.floor(p), math.floor(q)
    right, bottom = min(left + 1, len(plane[0]) - 1), min(top + 1, len(plane) - 1)
    along, down = p - left, q - top
    above = plane[top][left] * (1 - along) + plane[top][right] * along
    below = plane[bottom][left] * (1 - along) + plane[bottom][right] * along
    return above * (1 - down) + below * down


def native_masks(
    coeffs: NDArray[np.floating],
    protos: NDArray[np.floating],
    boxes_image: NDArray[np.floating],
    size_wh: tuple[int, int],
    placement: tuple[float, float, float, float],
    network_wh: tuple[int, int],
) -> NDArray[np.bool_]:
    """(k, h, w) masks of an image of `size_wh`, decided at each of its own pixels.

    coeffs (k, K); protos (K, mh, mw), which cover the whole network input of `network_wh` px;
    boxes_image (k, 4) x1, y1, x2, y2 in image px; placement (scale_x, scale_y, left, top) takes
    image px to network px. The prototypes' outermost values reach on to the input's edge.
    """
    w, h = size_wh
    scale_x, scale_y, left, top = placement
    network_w, network_h = network_wh
    mh, mw = protos.shape[1:]
    masks = np.zeros((len(coeffs), h, w), np.bool_)
    planes = small_logits(coeffs, protos)
    corners = boxes_image.astype(np.float64).tolist()
    for mask, plane, box in zip(masks, planes, corners, strict=True):
        for y in range(h):
            v = (y + 0.5) * scale_y + top
            q = min(max(v * mh / network_h - 0.5, 0.0), mh - 1.0)
            for x in range(w):
                if inside(box, x, y):
                    u = (x + 0.5) * scale_x + left
                    p = min(max(u * mw / network_w - 0.5, 0.0), mw - 1.0)
                    mask[y, x] = sample(plane, p, q) > 0
    return masks


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed counts of an (h, w) mask: column by column, zeros first."""
    counts, run, value = [], 0, False
    for pixel in mask.T.flatten().tolist():
        if bool(pixel) is not value:
            counts.append(run)
            run, value = 0, not value
        run += 1
    return [*counts, run]


def mask_of(counts: Sequence[int], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The inverse of `run_lengths`."""
    h, w = size_hw
    pixels: list[bool] = []
    for index, run in enumerate(counts):
        pixels += [index % 2 == 1] * run
    if len(pixels) != h * w:
        raise ValueError(f"{len(pixels)} pixels do not fill {h} x {w}")
    return np.array(pixels, np.bool_).reshape(w, h).T


def compress(counts: Sequence[int]) -> str:
    """COCO's string: from the fourth on the difference to two before, 5 bits a character.

    Low bits first; bit 5 of a character says that more follow, bit 4 of the last one is the sign;
    48 is added to make it printable.
    """
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != -1 if bits & 16 else value != 0
            text += chr(bits + 32 * more + 48)
    return text


def expand(text: str) -> list[int]:
    """The inverse of `compress`."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
