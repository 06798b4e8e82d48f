"""What a fixed view is: a camera, or the folder of images of unknown camera; and its boxes on one scale.

Rows --views--> View(place, rows, boxes_px, area_frac), one after another

Boxes are clipped to their image and scaled to the size of the view's first image of known size: IoU does not depend
on the scale, and where all images have one size no number changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.filters.boxes import Floats, area_px2, clipped, measurable
from batch.filters.contract import NO_RANK, Rows

Place = tuple[str, str]
"""("camera", camera_id), or ("folder", folder of the path, "" at the top)."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """`rows` as in the contract: by time (undated last), path, digest, rank. `boxes_px` (n, 4) and `area_frac` (n,)
    are NaN where a row has no box that can be measured, or no part of it lies in its image.
    """

    place: Place
    rows: Rows
    boxes_px: Floats
    area_frac: Floats

    def image_numbers(self) -> NDArray[np.intp]:
        """(n,): 0 for the rows of the first image, and so on."""
        media = self.rows.media_sha256
        return np.cumsum(np.append(False, media[1:] != media[:-1])[: len(media)])


def place_of(camera_id: str | None, path: str) -> Place:
    """Where an image belongs."""
    return ("folder", path.rpartition("/")[0]) if camera_id is None else ("camera", camera_id)


def places(rows: Rows) -> tuple[NDArray[np.intp], list[Place]]:
    """(n,): the number of each row's place; and the places, in the order of their first rows."""
    numbers: dict[Place, int] = {}
    found = (
        numbers.setdefault(place_of(camera, path), len(numbers))
        for camera, path in zip(rows.camera_id, rows.path, strict=True)
    )
    return np.fromiter(found, np.intp, len(rows)), list(numbers)


def views(rows: Rows) -> Iterator[View]:
    for part in rows.cameras():
        of_one = rows.take(part)
        camera = of_one.camera_id[0]
        if camera is not None:
            yield _view(place_of(camera, of_one.path[0]), of_one)
        else:
            for folder, index in _folders(of_one):
                yield _view(folder, of_one.take(index))


def unmeasurable(rows: Rows) -> NDArray[np.bool_]:
    """(n,): detections without a box that can be measured in an image of known size."""
    return (rows.rank != NO_RANK) & ~measurable(_inside(rows))


def labels_as_numbers(labels: NDArray[np.object_]) -> NDArray[np.intp]:
    """(n,): the same number for the same label."""
    numbers: dict[object, int] = {}
    found = (numbers.setdefault(label, len(numbers)) for label in labels)
    return np.fromiter(found, np.intp, len(labels))


def _folders(rows: Rows) -> Iterator[tuple[Place, NDArray[np.intp]]]:
    """Each folder of images of unknown camera with the indices of its rows, in their order."""
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
    """(n, 4): boxes clipped to their images; NaN where the size is not known."""
    known = np.isfinite(rows.width_px) & np.isfinite(rows.height_px)
    known &= (rows.width_px > 0) & (rows.height_px > 0)
    size = (np.where(known, rows.width_px, np.nan), np.where(known, rows.height_px, np.nan))
    return clipped(rows.boxes_px, *size)
