"""Messages of Antenna's processing-service API, as its server sends and expects them.

Unknown fields of requests are ignored, as Antenna adds fields. Times are UTC without a zone, as Antenna stores none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_IMAGES = 256
"""Maximum number of images of a request. Antenna sends 1, unless a project sets more."""


class Received(BaseModel):
    """Base of what Antenna sends."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class SourceImage(Received):
    id: str = Field(max_length=200)
    url: str = Field(max_length=8192)


class AlgorithmReference(Received):
    name: str
    key: str


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
        default=None, description="boxes to classify again in place of the detector's"
    )
    config: dict[str, Any] | None = Field(default=None, description="ignored")


class Task(Received):
    """One image of a job of the queue."""

    id: str
    image_id: str
    image_url: str
    reply_subject: str | None = None


class Sent(BaseModel):
    """Base of what Resight sends."""

    model_config = ConfigDict(frozen=True)


class CategoryMap(Sent):
    data: list[dict[str, Any]]
    labels: list[str]


class Algorithm(Sent):
    """One model version. Antenna keeps algorithms by `key` and never replaces their category map."""

    name: str
    key: str
    task_type: str
    version: int = 1
    version_name: str
    description: str
    category_map: CategoryMap


class PipelineInfo(Sent):
    name: str
    slug: str
    version: int = 1
    description: str
    algorithms: list[Algorithm]
    stages: list[dict[str, Any]] = []


class ServiceInfo(Sent):
    """Answer of GET /info."""

    name: str = "Resight"
    description: str = "Detectors and classifiers of a Resight model store"
    pipelines: list[PipelineInfo]
    algorithms: list[Algorithm]


class Classification(Sent):
    """Scores and logits have the order of the algorithm's labels."""

    classification: str
    scores: list[float]
    logits: list[float] | None = None
    inference_time: float | None = None
    algorithm: AlgorithmReference
    terminal: bool
    timestamp: datetime


class Detection(Sent):
    source_image_id: str
    bbox: BoundingBox
    inference_time: float | None = None
    algorithm: AlgorithmReference
    timestamp: datetime
    crop_image_url: None = None
    classifications: list[Classification]


class ImageFailure(Sent):
    """The reason why an image has no result."""

    image_id: str | None
    error: str


class PipelineResults(Sent):
    """Answer of POST /process.

    `source_images` lists only the images with a result: Antenna records those without a detection as empty.
    """

    pipeline: str
    total_time: float = Field(description="seconds")
    source_images: list[SourceImage]
    detections: list[Detection]
    errors: list[ImageFailure] | None = None


class Live(Sent):
    status: bool = True


class PipelinesOnline(Sent):
    """Answer of GET /readyz: the slugs of the pipelines with all models loaded."""

    status: list[str]


def now() -> datetime:
    """Return the time in UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
