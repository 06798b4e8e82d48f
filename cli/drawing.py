"""Draw the boxes, labels and masks of detections on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model_store.detections import Detections, RunLengths
from model_store.errors import BadRequest
from model_store.images.crops import Mark, draw_marks
from model_store.images.decode import Pixels
from model_store.transform.masks import bitmap_of

GREEN_BGR = (60, 200, 60)


def draw_detections(path: Path, pixels: Pixels, shown: Detections, labels: Sequence[str]) -> None:
    """Write a JPEG of `pixels`, (h, w, 3) uint8 RGB, with its detections; lines and letters scale with the picture.

    Raises BadRequest if the file cannot be written.
    """
    canvas: Any = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    height, width = canvas.shape[:2]
    if isinstance(shown.masks, RunLengths):
        for counts in shown.masks.counts:
            inside = bitmap_of(counts, (width, height))
            canvas[inside] = canvas[inside] // 2 + np.array(GREEN_BGR, np.uint8) // 2
    boxes = zip(shown.boxes_xyxy.tolist(), shown.scores, shown.class_ids, strict=True)
    draw_marks(canvas, [Mark(box, f"{labels[i]} {score:.2f}", GREEN_BGR) for box, score, i in boxes])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", canvas)[1].tobytes())
    except OSError as error:
        raise BadRequest(f"cannot draw into {path}: {error.strerror}") from error
