"""What a run is asked to do: model, scope and pace. Frozen, stored with the run as JSON."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from batch.policy import Snips, Stop
from batch.scope import Scope
from model_store.config import Preprocess


class PassSpec(BaseModel):
    """What every run over images has: which model, which images, and at what pace."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    model: str = Field(description="name, name@version or name:alias; pinned when the run starts")
    scope: Scope = Scope()
    actors: int = Field(
        default=1, ge=1, description="reading and decoding processes in the cluster"
    )
    threads: int = Field(default=0, ge=0, description="per actor; 0 = cores + 1")
    decode_on: str | None = Field(
        default=None, min_length=1, description="custom resource of the nodes that read and decode"
    )
    commit_s: float = Field(
        default=5.0, gt=0, le=3600, description="at most this much work is redone after a crash"
    )
    megapixels: int = Field(default=100, ge=1)
    stop: Stop = Stop()


class RunSpec(PassSpec):
    """Everything a run that detects needs to know; the same spec again resumes it."""

    chunk: int = Field(
        default=0, ge=0, le=1024, description="images per call to a replica; 0 = by their size"
    )
    snips: Snips | None = Field(default=None, description="crops of what is seen; None: none")


CHUNK_BYTES, CHUNK_IMAGES = 32 * 1024 * 1024, 64
"""Of a chunk, at most, unless it is given: larger ones fill the object store, smaller ones cost a
round trip of Ray more often (measured on two cores: 64 images and 3 threads 0.89 of a bare loop, 32
and 4 0.87, 16 and 6 0.82)."""


TILES_GUESSED = 24
"""Of an image of a tiled model, before it is read: 12 megapixels in tiles of 800 px."""


def images_per_chunk(chunk: int, spec: Preprocess) -> int:
    """What a run was told, or by the bytes of the network's input."""
    width_px, height_px = spec.input_px
    image_bytes = width_px * height_px * 3 * (TILES_GUESSED if spec.tiling else 1)
    return chunk or max(1, min(CHUNK_IMAGES, CHUNK_BYTES // image_bytes))


def new_run_id() -> str:
    """Sortable by start time, readable, unique: 20260514T031500-9f2c1a."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
