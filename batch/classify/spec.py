"""Specification of a classify run: classifier, detections and pace."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from archive.defaults import PRODUCTION
from batch.runs.spec import PassSpec


class ClassifySpec(PassSpec):
    """Complete input of a classify run; running the same spec again resumes it."""

    run_kind, job = "classify", "batch.classify"
    same = ("scope", "megapixels", "view", "labels", "least_score", "min_side_px", "margin_frac")

    view: str = Field(default=PRODUCTION, description="view with the detections to classify")
    labels: tuple[str, ...] = Field(
        default=(), description="only detections with these labels of the detector: animal,…"
    )
    least_score: float = Field(default=0.0, ge=0, le=1, description="minimum score of a detection, 0 to 1")
    min_side_px: float = Field(default=0.0, ge=0, description="minimum shorter side of a box, px")
    margin_frac: float = Field(
        default=0.0, ge=0, le=2, description="margin around each box, as a share of its longer side, 0 to 2"
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _named_once(cls, labels: Any) -> Any:
        """Return each label of an option once."""
        if not isinstance(labels, str):
            return labels
        names = dict.fromkeys(name.strip() for name in labels.split(",") if name.strip())
        if not names:
            raise ValueError("name at least one, such as --labels animal,bird")
        return tuple(names)
