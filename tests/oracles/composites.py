"""Photographs pasted at known places: images with ground truth, the same on every run.

composites() -> COMPOSITES x Composite(pixels (600, 800, 3) uint8 RGB, objects: COCO class and box)

One cat or person, or one in each half, resized and perhaps mirrored, on a plain or noisy background.
The box of the object inside each photograph was read off a grid drawn over it, not taken from a
detector. Knows nothing of the product.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.oracles.geometry import Box

Pixels = NDArray[np.uint8]

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
OBJECTS: dict[str, Box] = {  # x1, y1, x2, y2 in px of the photograph
    "cat": (0, 0, 402, 300),
    "person": (22, 15, 365, 512),
}
COMPOSITES = 12
WIDTH, HEIGHT = 800, 600
SEED = 20


class Object(NamedTuple):
    """Ground truth: a COCO-80 class name and x1, y1, x2, y2 in px of the composite."""

    label: str
    box: Box


class Composite(NamedTuple):
    """(HEIGHT, WIDTH, 3) RGB and what is to be seen in it."""

    pixels: Pixels
    objects: list[Object]


def composites(seed: int = SEED) -> list[Composite]:
    """Even ones show one object, odd ones two; plain and noisy backgrounds by turns of two."""
    rng = np.random.default_rng(seed)
    return [_composite(rng, index) for index in range(COMPOSITES)]


def _composite(rng: np.random.Generator, index: int) -> Composite:
    pixels = _plain(rng) if index // 2 % 2 == 0 else _noisy(rng)
    count = 1 + index % 2
    room = WIDTH // count
    labels = rng.permutation(list(OBJECTS)).tolist()[:count]
    objects = [_paste(rng, pixels, label, slot * room, room) for slot, label in enumerate(labels)]
    return Composite(pixels, objects)


def _plain(rng: np.random.Generator) -> Pixels:
    return np.full((HEIGHT, WIDTH, 3), rng.integers(40, 216, size=3), np.uint8)


def _noisy(rng: np.random.Generator) -> Pixels:
    """A colour with grain of 1 px, each channel for itself."""
    noise = rng.normal(0, 18, (HEIGHT, WIDTH, 3))
    return np.clip(np.rint(_plain(rng) + noise), 0, 255).astype(np.uint8)


def _paste(rng: np.random.Generator, pixels: Pixels, label: str, left: int, room: int) -> Object:
    """Puts the photograph somewhere in the columns left..left+room; its object's box there."""
    photo, (x1, y1, x2, y2) = _read(label), OBJECTS[label]
    h, w = photo.shape[:2]
    if rng.integers(2):
        photo, x1, x2 = photo[:, ::-1], w - x2, w - x1
    scale = min(room / w, HEIGHT / h) * rng.uniform(0.2, 1.0)
    new_w, new_h = round(w * scale), round(h * scale)
    x = left + int(rng.integers(0, room - new_w + 1))
    y = int(rng.integers(0, HEIGHT - new_h + 1))
    resized = cv2.resize(np.ascontiguousarray(photo), (new_w, new_h), interpolation=cv2.INTER_AREA)
    pixels[y : y + new_h, x : x + new_w] = resized
    across, down = new_w / w, new_h / h
    return Object(label, (x + x1 * across, y + y1 * down, x + x2 * across, y + y2 * down))


def _read(label: str) -> Pixels:
    bgr = cv2.imread(str(PHOTOS / f"{label}.jpg"), cv2.IMREAD_COLOR)
    assert bgr is not None, label
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8)
