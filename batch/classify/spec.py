"""What a classify run is asked to do: which classifier, of which detections, at what pace. Frozen, stored as JSON."""

from __future__ import annotations

from pydantic import Field

from archive.views import PRODUCTION
from batch.spec import PassSpec

SAME = ("scope", "megapixels", "view", "labels", "least_score", "min_side_px", "margin_frac")
"""What makes a run that is resumed by its id the same run; its pace may differ."""


class ClassifySpec(PassSpec):
    """Everything a classify run needs to know; the same spec again resumes it."""

    view: str = Field(default=PRODUCTION, description="whose detections")
    labels: tuple[str, ...] = Field(default=(), description="of the detector; none: all")
    least_score: float = Field(
        default=0.0, ge=0, le=1, description="of a detection, besides the thresholds of the view"
    )
    min_side_px: float = Field(default=0.0, ge=0, description="of a box, its shorter side")
    margin_frac: float = Field(
        default=0.0, ge=0, le=2, description="around a box, of its longer side"
    )
