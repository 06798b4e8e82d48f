"""Suppress or relabel boxes that are too small to identify, by share of the image or in px, or too large.

box --clipped to the image--> area_frac = its area / the image's, shorter side in px --limits--> `FilterAction`

The same share is a different size at another resolution (0.0008 of 4096 x 2160 is 84 x 84 px, of 640 x 480 it is
16 x 16 px); use min_side_px or per_camera then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from batch.filters.contract import Filter, FilterAction, FilterConfig, Rows
from batch.filters.support.boxes import Floats, area_px2, clipped, usable
from batch.filters.support.names import by_key
from batch.filters.support.reasons import compared

NOT_IDENTIFIABLE = "not identifiable"


class CameraSize(FilterConfig):
    """Limits of one camera; a missing value means the general limit."""

    min_area_frac: float | None = Field(None, ge=0, lt=1)
    """share of the image's area, 0 to 1: minimum; 0: no limit"""
    min_side_px: float | None = Field(None, ge=0)
    """px of the image: minimum shorter side; 0: no limit"""
    max_area_frac: float | None = Field(None, gt=0, le=1)
    """share of the image's area, 0 to 1: maximum; 1: no limit"""


class SmallSizeConfig(FilterConfig):
    kind: Literal["small-size"] = "small-size"
    min_area_frac: float = Field(0.0008, gt=0, lt=1)
    """share of the image's area, 0 to 1: a box is too small if its part within the image has less (strict)"""
    min_side_px: float | None = Field(
        None,
        gt=0,
        description="px of the image: a box is too small if the shorter side of its part within the "
        "image is less (strict); none: no limit",
    )
    max_area_frac: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the image's area, 0 to 1: a box is too large if its part within the "
        "image has more (strict); none: no limit",
    )
    per_camera: Annotated[dict[str, CameraSize], AfterValidator(by_key)] = {}
    """min_area_frac, min_side_px and max_area_frac by camera_id; missing values are those above"""
    action: Literal["suppress", "relabel"] = "suppress"
    """suppress: hide such boxes; relabel: label them 'not identifiable' and keep the detector's score"""


def actions(config: SmallSizeConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield an action for each box outside a limit. Reasons such as "area_frac 0.00061 < 0.0008" are joined by "; "."""
    rows = rows.take(usable(rows))
    inside_px = clipped(rows)
    area_frac = area_px2(inside_px) / (rows.width_px * rows.height_px)
    side_px = np.min(inside_px[:, 2:] - inside_px[:, :2], axis=1)
    min_frac, min_px, max_frac = _limits(config, rows.camera_id).T
    small, thin, large = area_frac < min_frac, side_px < min_px, area_frac > max_frac
    label = NOT_IDENTIFIABLE if config.action == "relabel" else None
    for i in np.flatnonzero(small | thin | large).tolist():
        frac = float(area_frac[i])
        reasons = (
            compared("area_frac", frac, "<", float(min_frac[i])) if small[i] else "",
            compared("side", float(side_px[i]), "<", float(min_px[i]), "px") if thin[i] else "",
            compared("area_frac", frac, ">", float(max_frac[i])) if large[i] else "",
        )
        reason = "; ".join(filter(None, reasons))
        yield FilterAction(*rows.target(i), config.action, reason, label=label)


def _limits(config: SmallSizeConfig, camera_id: NDArray[np.object_]) -> Floats:
    """Return (n, 3): minimum area_frac, minimum side in px, maximum area_frac; infinite without a limit."""
    min_px, max_frac = config.min_side_px or -np.inf, config.max_area_frac or np.inf
    table = [(config.min_area_frac, min_px, max_frac)]
    row_of: dict[object, int] = {}
    for camera, size in config.per_camera.items():
        row_of[camera] = len(table)
        limits = (size.min_area_frac, size.min_side_px, size.max_area_frac)
        table.append(
            tuple(a if b is None else b for a, b in zip(table[0], limits, strict=True))  # type: ignore[arg-type]
        )
    index = np.fromiter((row_of.get(camera, 0) for camera in camera_id), np.intp, len(camera_id))
    return np.array(table, np.float64)[index]


FILTER = Filter(config=SmallSizeConfig, apply=actions, context="image", order=20, invalid=lambda _, rows: ~usable(rows))
