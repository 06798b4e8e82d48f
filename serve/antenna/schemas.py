"""Requests of Antenna's processing-service API, as its server sends them.

Unknown fields are ignored, as Antenna adds fields.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_IMAGES, MAX_DETECTIONS = 64, 2000
"""Maximum numbers in a request. Antenna sends 1 image, unless a project sets more."""


class Received(BaseModel):
    """Base of what Antenna sends."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class SourceImage(Received):
    id: str = Field(max_length=200)
    url: str = Field(max_length=8192)


class AlgorithmReference(Received):
    name: str = Field(max_length=1000)
    key: str = Field(max_length=1000)


class BoundingBox(Received):
    """Sides in px of the upright image."""

    x1: float
    y1: float
    x2: float
    y2: float


class KnownDetection(Received):
    """A detection that Antenna has already; one without a box states that an image is empty."""

    source_image: SourceImage
    bbox: BoundingBox | None = None
    algorithm: AlgorithmReference


class PipelineRequest(Received):
    """Body of POST /process."""

    pipeline: str = Field(max_length=400)
    source_images: list[SourceImage] = Field(max_length=MAX_IMAGES)
    detections: list[KnownDetection] | None = Field(
        default=None, max_length=MAX_DETECTIONS, description="boxes to classify again in place of the detector's"
    )
    config: dict[str, Any] | None = Field(default=None, description="ignored")
