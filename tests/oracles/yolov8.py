"""One image through a YOLOv8-layout ONNX model, decoded with plain loops.

Shared with the product: the onnxruntime session and cv2.resize. Everything else is written here
from the definition: RGB * scale as float32, NCHW; output [1, 4+C, A] = cx, cy, w, h in network
pixels, then C scores that already lie in 0..1 (no objectness).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracles.geometry import BOX_BACK, LETTERBOX_PAD, Box, Geometry, resize_pixels
from tests.oracles.nms import nms

Detection = tuple[int, float, float, float, float, float]


def tensor(pixels: NDArray[np.uint8], scale: float = 1 / 255) -> NDArray[np.float32]:
    """(S, S, 3) RGB uint8 -> (1, 3, S, S) float32, each value pixel * float32(scale)."""
    planes = np.transpose(pixels, (2, 0, 1)).astype(np.float32) * np.float32(scale)
    return np.ascontiguousarray(planes[np.newaxis])


def decode(output: NDArray[np.float32], score_floor: float) -> tuple[list[Box], list[float], list[int]]:
    """[1, 4+C, A] -> xyxy boxes in network px (float64), best scores, classes; anchors in order.

    The best class of an anchor is the one with the highest score, the lowest index among equals;
    it is kept when its score is strictly greater than the floor, both as float32. NaN never wins and never passes.
    """
    if output.ndim != 3 or output.shape[0] != 1 or output.shape[1] < 5:
        raise ValueError(f"wanted [1, 4+C, A], found {output.shape}")
    boxes: list[Box] = []
    scores: list[float] = []
    classes: list[int] = []
    for column in output[0].T.tolist():
        cx, cy, width, height = column[:4]
        best_class, best_score = -1, float("-inf")
        for index, score in enumerate(column[4:]):
            if score > best_score:
                best_class, best_score = index, score
        if best_class >= 0 and np.float32(best_score) > np.float32(score_floor):
            boxes.append((cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))
            scores.append(best_score)
            classes.append(best_class)
    return boxes, scores, classes


def detect(
    session: Any,
    image_rgb_uint8: NDArray[np.uint8],
    *,
    side: int,
    geometry: Geometry,
    score_floor: float,
    iou: float,
    class_aware: bool,
    max_detections: int,
    scale: float = 1 / 255,
    interpolation: str = "linear",
    pad_value: int = LETTERBOX_PAD,
) -> list[Detection]:
    """(label index, score, x1, y1, x2, y2) in original pixels; NMS is done in network pixels.

    Sorted by score descending, then class, x1, y1, x2, y2 ascending. Boxes are clipped to the image
    and none is dropped for having become empty.
    """
    h, w = image_rgb_uint8.shape[:2]
    pixels = resize_pixels(image_rgb_uint8, geometry, interpolation, side=side, pad_value=pad_value)
    (output,) = session.run(None, {session.get_inputs()[0].name: tensor(pixels, scale)})
    boxes, scores, classes = decode(output, score_floor)
    kept = nms(boxes, scores, classes, threshold=iou, class_aware=class_aware, max_detections=max_detections)
    detections: list[Detection] = []
    for index in kept:
        x1, y1, x2, y2 = BOX_BACK[geometry](boxes[index], w, h, side)
        detections.append((classes[index], scores[index], x1, y1, x2, y2))
    detections.sort(key=lambda found: (-found[1], *found[:1], *found[2:]))
    return detections
