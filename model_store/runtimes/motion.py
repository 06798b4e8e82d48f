"""Runtime `motion`: a classical detector of contrasting blobs without weights. It does not recognise animals.

A single image contains no motion, so it is compared with a blurred copy of itself:
grey -> |grey - blurred grey| -> threshold -> open, close -> connected blobs.
Score = mean difference inside the blob / 255. Use: tests of the pipeline, a baseline, a fallback. All parameters come
from the config; none is trained.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from model_store.config import MotionRuntime

_OPEN = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))


class MotionSession:
    """Session: (n, 3, side, side) float32, 0..1 -> {"blobs": (n, max_blobs, 5)}, see `decoders/ranked.py`."""

    device = "cpu"

    def __init__(self, settings: MotionRuntime) -> None:
        self._settings = settings

    def run(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return {"blobs": np.stack([self._blobs(image) for image in tensor])}

    def _blobs(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        settings = self._settings
        grey = np.clip(np.rint(image.mean(axis=0) * 255), 0, 255).astype(np.uint8)
        background = cv2.GaussianBlur(grey, (0, 0), settings.background_sigma_px)
        difference = cv2.absdiff(grey, background)
        mask = (difference >= settings.min_contrast).astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _OPEN)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _CLOSE)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
        total = np.bincount(parts.ravel(), weights=difference.ravel(), minlength=count)
        rows: list[list[float]] = []
        for blob in range(1, count):
            x, y, w, h, area = (int(value) for value in stats[blob])
            if area >= settings.min_area_frac * grey.size:
                rows.append([x, y, x + w, y + h, min(1.0, float(total[blob]) / area / 255)])
        rows.sort(key=lambda row: -row[4])
        blobs = np.zeros((settings.max_blobs, 5), np.float32)
        kept = rows[: settings.max_blobs]
        if kept:
            blobs[: len(kept)] = kept
        return blobs
