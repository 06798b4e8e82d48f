"""Cut the crops of one image, from its row of a plan to the input of a classifier. Independent of Ray.

row --read, check the digest, decode upright--> pixels --crop, prepare each box--> Crop(input) or Crop(error code)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.pipeline.read_image import MAX_DETAIL, boxed_pixels, image_bytes
from model_store.config import Preprocess
from model_store.errors import ImageError
from model_store.images.crops import Corners, corners_px
from model_store.images.decode import Pixels
from model_store.transform.preprocess import prepare

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """Crop of one detection, with `input` (h, w, 3) and `corners` (left, top, right, bottom px), or with `error_code`.

    The first crop of an image has the times of the whole image, the others 0.
    """

    media_sha256: str
    rank: int
    replaces: bool
    input: NDArray[np.uint8] | None = None
    corners: Corners | None = None
    error_code: str | None = None
    error_detail: str | None = None
    read_ms: float = 0.0
    decode_ms: float = 0.0


def crops_of(row: Row, spec: Preprocess, margin_frac: float, max_pixels: int) -> list[Crop]:
    """Return a crop for each box of the row, in order. An invalid image gives crops with an error code.

    Raises StorageUnreachable if the archive is unavailable; this and unknown errors stop the run.
    """
    started = time.perf_counter()
    data = image_bytes(row)
    read_ms = (time.perf_counter() - started) * 1e3
    started = time.perf_counter()
    try:
        pixels = boxed_pixels(row, data, max_pixels, spec.damaged == "tolerate")
    except ImageError as error:
        return _failed(row, error.code, str(error), read_ms)
    cut = [_cut(pixels, box, margin_frac, spec) for box in row["boxes"]]
    decode_ms = (time.perf_counter() - started) * 1e3
    crops = [
        Crop(row["media_sha256"], box["rank"], box["replaces"], prepared, corners)
        for box, (corners, prepared) in zip(row["boxes"], cut, strict=True)
    ]
    return _timed(crops, read_ms, decode_ms)


def _cut(pixels: Pixels, box: Row, margin_frac: float, spec: Preprocess) -> tuple[Corners, NDArray[np.uint8]]:
    """Cut and prepare a box like `Classifier.read` for a box over HTTP, and add the margin."""
    height_px, width_px = pixels.shape[:2]
    sides = (box["x1_px"], box["y1_px"], box["x2_px"], box["y2_px"])
    corners = corners_px(sides, margin_frac, (width_px, height_px))
    left, top, right, bottom = corners
    return corners, prepare(pixels[top:bottom, left:right], spec).pixels[0]


def _failed(row: Row, code: str, detail: str, read_ms: float) -> list[Crop]:
    crops = [
        Crop(row["media_sha256"], box["rank"], box["replaces"], error_code=code, error_detail=detail[:MAX_DETAIL])
        for box in row["boxes"]
    ]
    return _timed(crops, read_ms)


def _timed(crops: list[Crop], read_ms: float, decode_ms: float = 0.0) -> list[Crop]:
    """Give the first crop the times of its image."""
    return [replace(crops[0], read_ms=read_ms, decode_ms=decode_ms), *crops[1:]] if crops else []
