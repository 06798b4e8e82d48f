"""Small boxes, as a share of their image or in px: too small to say what is in them. Also boxes that are too large.

box --clipped to the image--> area_frac = its area / the image's, shorter side in px --limits of its camera--> Said

The same share is another size in another resolution (0.0008 of 4096 x 2160 is 84 x 84 px, of 640 x 480 it is
16 x 16), hence min_side_px and values per camera.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from batch.filters.boxes import Floats, area_px2, clipped, measurable
from batch.filters.contract import NO_RANK, Filter, FilterConfig, Rows, Said
from batch.filters.reasons import compared

NOT_IDENTIFIABLE = "not identifiable"


class CameraSize(BaseModel):
    """Limits of one camera; none: as everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_area_frac: float | None = Field(
        default=None, ge=0, lt=1, description="share of the image's area, 0 to 1; 0: no limit"
    )
    min_side_px: float | None = Field(
        default=None, ge=0, description="px of the image, of the shorter side; 0: no limit"
    )
    max_area_frac: float | None = Field(
        default=None, gt=0, le=1, description="share of the image's area, 0 to 1; 1: no limit"
    )


def _sorted(per_camera: dict[str, CameraSize]) -> dict[str, CameraSize]:
    return dict(sorted(per_camera.items()))


class SmallSizeConfig(FilterConfig):
    kind: Literal["small-size"] = "small-size"
    min_area_frac: float = Field(
        default=0.0008,
        gt=0,
        lt=1,
        description="share of the image's area, 0 to 1: a box is too small when the part of it within the image "
        "has less (strict)",
    )
    min_side_px: float | None = Field(
        default=None,
        gt=0,
        description="px of the image: a box is too small when the shorter side of that part is less (strict); "
        "none: not asked",
    )
    max_area_frac: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of the image's area, 0 to 1: a box is too large when that part has more (strict); "
        "none: not asked",
    )
    per_camera: Annotated[dict[str, CameraSize], AfterValidator(_sorted)] = Field(
        default={},
        description="other values of the three, by camera_id; what is left out is as above",
    )
    action: Literal["suppress", "relabel"] = Field(
        default="suppress",
        description=f"suppress: such a box is not shown; relabel: it is called '{NOT_IDENTIFIABLE}' and keeps the "
        "score of its detector",
    )


def invalid(config: SmallSizeConfig, rows: Rows) -> NDArray[np.bool_]:
    """(n,): detections whose box cannot be measured, or whose image's size is not known."""
    return (rows.rank != NO_RANK) & ~_judged(rows)


def say(config: SmallSizeConfig, rows: Rows) -> Iterator[Said]:
    """One for each box that a limit is against. Reason: "area_frac 0.00061 < 0.0008", joined by "; "."""
    rows = rows.take(_judged(rows))
    inside_px = clipped(rows.boxes_px, rows.width_px, rows.height_px)
    area_frac = area_px2(inside_px) / (rows.width_px * rows.height_px)
    side_px = np.min(inside_px[:, 2:] - inside_px[:, :2], axis=1)
    least_frac, least_px, most_frac = _limits(config, rows.camera_id).T
    small, thin, large = area_frac < least_frac, side_px < least_px, area_frac > most_frac
    label = NOT_IDENTIFIABLE if config.action == "relabel" else None
    for i in np.flatnonzero(small | thin | large).tolist():
        frac = float(area_frac[i])
        reasons = (
            compared("area_frac", frac, "<", float(least_frac[i])) if small[i] else "",
            compared("side", float(side_px[i]), "<", float(least_px[i]), "px") if thin[i] else "",
            compared("area_frac", frac, ">", float(most_frac[i])) if large[i] else "",
        )
        reason = "; ".join(filter(None, reasons))
        yield Said(rows.media_sha256[i], int(rows.rank[i]), config.action, reason, label=label)


def _judged(rows: Rows) -> NDArray[np.bool_]:
    known = np.isfinite(rows.width_px) & np.isfinite(rows.height_px)
    known &= (rows.width_px > 0) & (rows.height_px > 0)
    return (rows.rank != NO_RANK) & known & measurable(rows.boxes_px)


def _limits(config: SmallSizeConfig, camera_id: NDArray[np.object_]) -> Floats:
    """(n, 3): least area_frac, least side in px, most area_frac; infinite where there is none."""
    least_px, most_frac = config.min_side_px or -np.inf, config.max_area_frac or np.inf
    table = [(config.min_area_frac, least_px, most_frac)]
    number: dict[object, int] = {}
    for camera, own in config.per_camera.items():
        number[camera] = len(table)
        given = (own.min_area_frac, own.min_side_px, own.max_area_frac)
        table.append(
            tuple(a if b is None else b for a, b in zip(table[0], given, strict=True))  # type: ignore[arg-type]
        )
    which = np.fromiter((number.get(camera, 0) for camera in camera_id), np.intp, len(camera_id))
    return np.array(table, np.float64)[which]


FILTER = Filter(config=SmallSizeConfig, apply=say, context="image", order=20, invalid=invalid)
