"""Specifications of runs over images: model, scope and pace.

They are frozen, stored with the run as JSON, and submitted with its job.
Each field is an option of the command and of the job, with its description as help (`batch/runs/options.py`).
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from archive.defaults import PRODUCTION
from archive.views.run_kinds import RunKind
from batch.runs.scope import Scope
from batch.schedule.policy import Snips, Stop
from model_store.frozen import Frozen
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from model_store.config import Preprocess


RUN_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class PassSpec(Frozen):
    """Fields of every run over images: model, scope and pace."""

    run_kind: ClassVar[RunKind]
    job: ClassVar[str]
    """Module of its job."""
    same: ClassVar[tuple[str, ...]]
    """Fields that must not change when a run is resumed by its id; its pace can."""

    model: str = Field(description="name, name@version or name:alias; pinned when the run starts")
    scope: Scope = Scope()
    run_id: str = Field(pattern=RUN_ID, description="new, or of the run to resume; default: from the time")
    actors: int = Field(
        default=0,
        ge=0,
        description="processes that read and decode images; 0: one, or without a cluster one for every 8 cores",
    )
    threads: int = Field(default=0, ge=0, description="threads per process; 0: by the cores")
    decode_on: str | None = Field(
        default=None, min_length=1, description="custom resource of the nodes that read and decode; default: any node"
    )
    commit_s: float = Field(
        default=5.0, gt=0, le=3600, description="seconds between commits: the maximum work lost in a crash"
    )
    megapixels: int = Field(default=100, ge=1, description="limit in megapixels; larger images fail as too_large")
    stop: Stop = Stop()
    started_by: str | None = Field(default=None, max_length=200, description="name of who starts the run, kept with it")

    @property
    def run_ids(self) -> list[str]:
        """Return the runs of its job, in order."""
        return [self.run_id]


class RunSpec(PassSpec):
    """Spec of a detection run; the same spec again resumes it."""

    run_kind, job = "detect", "batch.reprocess"
    same = ("scope", "megapixels", "snips")

    chunk: int = Field(default=0, ge=0, le=1024, description="images per call to a replica; 0: by their size")
    snips: Snips | None = Field(default=None, description="keep a crop of each detection as a JPEG")
    then: str = Field(
        default="",
        description="classifier (name, name@version or name:alias) that then runs on the detections of the scope",
    )

    @model_validator(mode="after")
    def _whole_scope(self) -> Self:
        if self.then and (self.scope.sample or self.scope.latest_per_camera):
            raise ValueError("then excludes sample and latest_per_camera: start 'resight classify' after the run")
        return self

    @property
    def run_ids(self) -> list[str]:
        return [self.run_id, f"{self.run_id[:95]}-then"] if self.then else [self.run_id]

    def classify_spec(self, detector: str) -> ClassifySpec:
        """Return the spec of the classify run that follows, on the results of `detector` (name@version)."""
        fields = {name: getattr(self, name) for name in PassSpec.model_fields}
        scope = self.scope.model_copy(update={"status": None})  # it is one of detections
        fields |= {"model": self.then, "run_id": self.run_ids[1], "scope": scope, "view": detector}
        return ClassifySpec.model_validate(fields)


class CropsSpec(PassSpec):
    """Fields of every run of a model over crops of detections; running the same spec again resumes it."""

    same = ("scope", "megapixels", "view", "labels", "least_score", "min_side_px", "margin_frac")

    view: str = Field(
        default=PRODUCTION,
        description="view with the detections, or name@version of a detector: all of its results, at its thresholds",
    )
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


class ClassifySpec(CropsSpec):
    """Complete input of a classify run."""

    run_kind, job = "classify", "batch.classify"


class EmbedSpec(CropsSpec):
    """Complete input of an embed run."""

    run_kind, job = "embed", "batch.embed"


CHUNK_BYTES, CHUNK_IMAGES = 32 * 1024 * 1024, 64
"""Limits of a chunk, unless its size is given: larger ones fill the object store, smaller ones cost more round trips of
Ray. Measured on two cores: 64 images and 3 threads reach 0.89 of a bare loop, 32 and 4 reach 0.87, 16 and 6 0.82."""
TILES_GUESSED = 24
"""Assumed tiles of an image before it is read: 12 megapixels in tiles of 800 px."""


def images_per_chunk(chunk: int, spec: Preprocess) -> int:
    """Return `chunk`, or if it is 0, a number from the bytes of the network's input."""
    width_px, height_px = spec.input_px
    image_bytes = width_px * height_px * 3 * (TILES_GUESSED if spec.tiling else 1)
    return chunk or max(1, min(CHUNK_IMAGES, CHUNK_BYTES // image_bytes))


def new_run_id() -> str:
    """Return an id that is unique, readable and sortable by start time: 20260514T031500-9f2c1a."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
