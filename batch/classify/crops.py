"""The crops of one image, from its row of a plan to what a classifier is given; knows no Ray.

row --read, check the digest, decode upright--> pixels --crop, prepare each box--> Crop(input) or Crop(error code)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.read import MAX_DETAIL, image_bytes, within_memory
from model_store.config import Preprocess
from model_store.crops import Corners, corners_px
from model_store.errors import ImageError
from model_store.images import Pixels, decode
from model_store.preprocess import prepare

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """Either `input` (down, across, 3) and `corners` (left, top, right, bottom px) are set, or `error_code`.

    Times are of the whole image and stand with its first crop.
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
    """One for each box of the row, in order. Never raises for what the image is.

    Raises StorageUnreachable when the archive itself is away; that and unknown errors stop the run.
    """
    started = time.perf_counter()
    data = image_bytes(row)
    read_ms = (time.perf_counter() - started) * 1e3
    if not isinstance(data, bytes):
        return _failed(row, str(data.error_code), str(data.error_detail), read_ms)
    started = time.perf_counter()
    try:
        with within_memory():
            pixels = decode(data, max_pixels, tolerant=spec.damaged == "tolerate").pixels
    except ImageError as error:
        return _failed(row, error.code, str(error), read_ms)
    height_px, width_px = pixels.shape[:2]
    if (width_px, height_px) != (row["width_px"], row["height_px"]):
        words = (
            f"the image is {width_px}x{height_px}, but was {row['width_px']}x{row['height_px']} when its "
            "detections were made"
        )
        return _failed(row, "crop", words, read_ms)
    cut = [_cut(pixels, box, margin_frac, spec) for box in row["boxes"]]
    decode_ms = (time.perf_counter() - started) * 1e3
    return [
        Crop(
            row["media_sha256"],
            box["rank"],
            box["replaces"],
            picture,
            corners,
            read_ms=read_ms if first else 0.0,
            decode_ms=decode_ms if first else 0.0,
        )
        for first, box, (corners, picture) in _marked(row, cut)
    ]


def _cut(
    pixels: Pixels, box: Row, margin_frac: float, spec: Preprocess
) -> tuple[Corners, NDArray[np.uint8]]:
    """As `Classifier.read` does for a box over HTTP, but for the margin."""
    height_px, width_px = pixels.shape[:2]
    sides = (box["x1_px"], box["y1_px"], box["x2_px"], box["y2_px"])
    corners = corners_px(sides, margin_frac, (width_px, height_px))
    left, top, right, bottom = corners
    return corners, prepare(pixels[top:bottom, left:right], spec).pixels[0]


def _marked(row: Row, cut: list[Any]) -> list[tuple[bool, Row, Any]]:
    return [(i == 0, box, one) for i, (box, one) in enumerate(zip(row["boxes"], cut, strict=True))]


def _failed(row: Row, code: str, detail: str, read_ms: float) -> list[Crop]:
    return [
        Crop(
            row["media_sha256"],
            box["rank"],
            box["replaces"],
            error_code=code,
            error_detail=detail[:MAX_DETAIL],
            read_ms=read_ms if i == 0 else 0.0,
        )
        for i, box in enumerate(row["boxes"])
    ]
