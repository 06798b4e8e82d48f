"""Geometry of boxes in px, (n, 4) x1 y1 x2 y2 float64, and the fixed views of cameras in which boxes are compared.

Lengths are continuous: a box from 0 to 10 is 10 px wide, not 11.

Rows --views--> CameraView(place, rows, boxes_px, area_frac), one for each camera, or folder of images without one.
Boxes of a view are clipped to their image and scaled to the view's first image that has a size. IoU does not depend on
the scale, and nothing changes if all images have one size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.filters.contract import NO_RANK, Rows

Floats = NDArray[np.float64]
Place = tuple[str, str]
"""("camera", camera_id), or ("folder", folder of the path; "" at the top)."""


def measurable(boxes_px: Floats) -> NDArray[np.bool_]:
    """Return (n,) bool: boxes that are finite, with x1 < x2 and y1 < y2."""
    x1, y1, x2, y2 = boxes_px.T
    return np.isfinite(boxes_px).all(axis=1) & (x1 < x2) & (y1 < y2)


def usable(rows: Rows) -> NDArray[np.bool_]:
    """Return (n,) bool: detections in an image with a size, with a measurable box, which may lie outside the image."""
    return (rows.rank != NO_RANK) & _sized(rows) & measurable(rows.boxes_px)


def area_px2(boxes_px: Floats) -> Floats:
    """Return the areas, (n,); 0 for an inverted box."""
    x1, y1, x2, y2 = boxes_px.T
    return np.maximum(x2 - x1, 0.0) * np.maximum(y2 - y1, 0.0)


def clipped(rows: Rows) -> Floats:
    """Return the boxes clipped to their images, (n, 4); NaN if the image has no size. Outside it they have no area."""
    size_px = np.stack((rows.width_px, rows.height_px, rows.width_px, rows.height_px), axis=1)
    return np.where(_sized(rows)[:, np.newaxis], np.clip(rows.boxes_px, 0.0, size_px), np.nan)


def unmeasurable(_config: object, rows: Rows) -> NDArray[np.bool_]:
    """Return (n,) bool: rows without a measurable box within their image, or in an image of unknown size."""
    return ~measurable(clipped(rows))


@dataclass(frozen=True, slots=True, eq=False)
class CameraView:
    """A camera or folder with its rows by time (undated last), path, digest, rank.

    `boxes_px` (n, 4) and `area_frac` (n,) are NaN for rows without a measurable box within the image.
    """

    place: Place
    rows: Rows
    boxes_px: Floats
    area_frac: Floats


def place_of(camera_id: str | None, path: str) -> Place:
    return ("folder", path.rpartition("/")[0]) if camera_id is None else ("camera", camera_id)


def places(rows: Rows) -> tuple[NDArray[np.intp], list[Place]]:
    """Return the number of each row's place, (n,), and the places in the order of their first rows."""
    numbers: dict[Place, int] = {}
    of_rows = (
        numbers.setdefault(place_of(camera, path), len(numbers))
        for camera, path in zip(rows.camera_id, rows.path, strict=True)
    )
    return np.fromiter(of_rows, np.intp, len(rows)), list(numbers)


def views(rows: Rows) -> Iterator[CameraView]:
    """Yield the view of each camera, and of each folder of unknown cameras."""
    number, found = places(rows)
    order = np.argsort(number, kind="stable")
    sizes = np.bincount(number, minlength=len(found))
    for place, size, end in zip(found, sizes, np.cumsum(sizes), strict=True):
        yield _view(place, rows.take(order[end - size : end]))


def _view(place: Place, rows: Rows) -> CameraView:
    boxes_px = clipped(rows)
    in_image = (rows.rank != NO_RANK) & measurable(boxes_px)
    boxes_px[~in_image] = np.nan
    area_frac = area_px2(boxes_px) / (rows.width_px * rows.height_px)
    if in_image.any():
        first = int(np.argmax(in_image))
        scale_x = rows.width_px[first] / rows.width_px
        scale_y = rows.height_px[first] / rows.height_px
        boxes_px *= np.stack((scale_x, scale_y, scale_x, scale_y), axis=1)
    return CameraView(place, rows, boxes_px, area_frac)


def _sized(rows: Rows) -> NDArray[np.bool_]:
    """Return (n,) bool: rows of images with a size."""
    return (rows.width_px > 0) & (rows.height_px > 0) & np.isfinite(rows.width_px * rows.height_px)
