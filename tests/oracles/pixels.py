"""Pixels to rows: a real network with preparation, decoding and suppression in plain loops around it.

(h, w, 3) RGB -> Recipe's geometry and scale -> onnxruntime -> the oracle of the decoder -> NMS in image px -> clipped

Shared with the product: the onnxruntime session and cv2.resize. A Recipe says how a network was trained, and is
written out where it is used. Knows nothing of the product.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.oracles.decoders import ORACLES
from tests.oracles.geometry import Kind, place, resize_picture
from tests.oracles.nms import nms


class Recipe(NamedTuple):
    """`scale` is what each pixel is multiplied by; `one_px` is 1 where boxes end with their last pixel."""

    decoder: str
    side_px: int
    classes: int
    kind: Kind
    iou: float
    class_aware: bool = True
    pad_value: int = 114
    scale: float = 1 / 255
    bgr: bool = False
    one_px: float = 0.0
    max_detections: int = 300


class Row(NamedTuple):
    """A detection in px of the image."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]


def tensor(image: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float32]:
    """(1, 3, side, side): planes in the network's order."""
    side = recipe.side_px
    canvas = resize_picture(image, recipe.kind, side, side, pad_value=recipe.pad_value)
    planes = [canvas[..., channel] for channel in ((2, 1, 0) if recipe.bgr else (0, 1, 2))]
    return np.stack(planes)[np.newaxis].astype(np.float32) * np.float32(recipe.scale)


def detect(session: Any, image: NDArray[np.uint8], recipe: Recipe, floor: float) -> list[Row]:
    """Best first. Suppression is in px of the image, before anything is clipped to it."""
    names = [output.name for output in session.get_outputs()]
    values = session.run(None, {session.get_inputs()[0].name: tensor(image, recipe)})
    outputs = dict(zip(names, values, strict=True))
    (found,) = ORACLES[recipe.decoder].decode(outputs, recipe.side_px, recipe.classes, floor)
    h, w = image.shape[:2]
    placed, _, _ = place(recipe.kind, w, h, recipe.side_px, recipe.side_px)
    boxes = [
        (
            (box.x1 - placed.left) / placed.scale_x,
            (box.y1 - placed.top) / placed.scale_y,
            (box.x2 - placed.left) / placed.scale_x,
            (box.y2 - placed.top) / placed.scale_y,
        )
        for box in found
    ]
    kept = nms(
        boxes,
        [box.score for box in found],
        [box.class_id for box in found],
        threshold=recipe.iou,
        class_aware=recipe.class_aware,
        max_detections=recipe.max_detections,
        one_px=recipe.one_px,
    )
    return [Row(found[i].class_id, found[i].score, _clipped(boxes[i], w, h)) for i in kept]


def _clipped(box: tuple[float, float, float, float], w: int, h: int) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return min(max(x1, 0), w), min(max(y1, 0), h), min(max(x2, 0), w), min(max(y2, 0), h)
