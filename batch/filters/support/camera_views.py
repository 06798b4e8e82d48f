"""Split rows into fixed views, with boxes on one scale. A view is a camera, or a folder of images of unknown camera.

Rows --views--> View(place, rows, boxes_px, area_frac), one after another

Boxes are clipped to their image and scaled to the view's first image that has a size. IoU does not depend on the
scale, and nothing changes if all images have one size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.filters.contract import NO_RANK, Rows
from batch.filters.support.boxes import Floats, area_px2, clipped, measurable

Place = tuple[str, str]
"""("camera", camera_id), or ("folder", folder of the path; "" at the top)."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A camera or folder with its rows by time (undated last), path, digest, rank.

    `boxes_px` (n, 4) and `area_frac` (n,) are NaN for rows without a measurable box within the image.
    """

    place: Place
    rows: Rows
    boxes_px: Floats
    area_frac: Floats

    def image_numbers(self) -> NDArray[np.intp]:
        """Return the number of each row's image, (n,), from 0."""
        media = self.rows.media_sha256
        return np.cumsum(np.append(False, media[1:] != media[:-1])[: len(media)])


def place_of(camera_id: str | None, path: str) -> Place:
    """Return the place of an image."""
    return ("folder", path.rpartition("/")[0]) if camera_id is None else ("camera", camera_id)


def places(rows: Rows) -> tuple[NDArray[np.intp], list[Place]]:
    """Return the number of each row's place, (n,), and the places in the order of their first rows."""
    numbers: dict[Place, int] = {}
    of_rows = (
        numbers.setdefault(place_of(camera, path), len(numbers))
        for camera, path in zip(rows.camera_id, rows.path, strict=True)
    )
    return np.fromiter(of_rows, np.intp, len(rows)), list(numbers)


def views(rows: Rows) -> Iterator[View]:
    """Yield the view of each camera, and of each folder of unknown cameras."""
    for part in rows.cameras():
        camera_rows = rows.take(part)
        camera = camera_rows.camera_id[0]
        if camera is not None:
            yield _view(place_of(camera, camera_rows.path[0]), camera_rows)
        else:
            for folder, index in _folders(camera_rows):
                yield _view(folder, camera_rows.take(index))


def unmeasurable(rows: Rows) -> NDArray[np.bool_]:
    """Return (n,) bool: detections without a measurable box, or in an image of unknown size."""
    return (rows.rank != NO_RANK) & ~measurable(_inside(rows))


def _folders(rows: Rows) -> Iterator[tuple[Place, NDArray[np.intp]]]:
    """Yield each folder with the indices of its rows, in row order."""
    number, folders = places(rows)
    order = np.argsort(number, kind="stable")
    ends = np.cumsum(np.bincount(number))
    yield from zip(folders, np.split(order, ends[:-1]), strict=True)


def _view(place: Place, rows: Rows) -> View:
    boxes_px = _inside(rows)
    usable = (rows.rank != NO_RANK) & measurable(boxes_px)
    boxes_px[~usable] = np.nan
    area_frac = area_px2(boxes_px) / (rows.width_px * rows.height_px)
    if usable.any():
        first = int(np.argmax(usable))
        scale_x = rows.width_px[first] / rows.width_px
        scale_y = rows.height_px[first] / rows.height_px
        boxes_px *= np.stack((scale_x, scale_y, scale_x, scale_y), axis=1)
    return View(place, rows, boxes_px, area_frac)


def _inside(rows: Rows) -> Floats:
    """Return the boxes clipped to their images, (n, 4); NaN if the image size is unknown."""
    sized = np.isfinite(rows.width_px) & np.isfinite(rows.height_px)
    sized &= (rows.width_px > 0) & (rows.height_px > 0)
    size = (np.where(sized, rows.width_px, np.nan), np.where(sized, rows.height_px, np.nan))
    return clipped(rows.boxes_px, *size)
