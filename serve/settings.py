"""Where everything is and what is allowed: environment for places and secrets, arguments for the rest.

RESIGHT_HOME holds models/, tables/, logs/ and the cluster's state; RESIGHT_MODELS, RESIGHT_TABLES and
RESIGHT_LOGS move those elsewhere, the first two also to s3://.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_store.storage import absolute


class Settings(BaseSettings):
    """From RESIGHT_* variables."""

    model_config = SettingsConfigDict(env_prefix="RESIGHT_", frozen=True, extra="ignore")

    home: str = Field(default="~/.resight", description="folder for all state")
    models: str = Field(default="", description="model store, default HOME/models; s3:// allowed")
    tables: str = Field(default="", description="Delta tables, default HOME/tables; s3:// allowed")
    logs: str = Field(default="", description="logs of Ray's start, default HOME/logs")
    token: str = Field(default="", description="bearer token; needed to listen beyond loopback")
    address: str = Field(
        default="", description="Ray dashboard URL of a cluster 'resight up' did not start here"
    )

    @property
    def home_path(self) -> Path:
        return Path(absolute(self.home))

    @property
    def models_url(self) -> str:
        return absolute(self.models or str(self.home_path / "models"))

    @property
    def tables_url(self) -> str:
        return absolute(self.tables or str(self.home_path / "tables"))

    @property
    def logs_path(self) -> Path:
        return Path(absolute(self.logs)) if self.logs else self.home_path / "logs"


class Limits(BaseModel):
    """What one request may cost. Over it: 413 (size), 429 (queue)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_mib: int = Field(default=32, ge=1)
    megapixels: int = Field(default=100, ge=1, description="by the image header, before decoding")
    online_queue: int = Field(
        default=64, ge=1, description="images admitted at a time, per replica"
    )
    bulk_queue: int = Field(default=2048, ge=1, description="images of chunks waiting, per replica")


class DetectArgs(BaseModel):
    """Arguments of the `detect` application (`args:` in serve/app.yaml)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: str = Field(
        default="", description="model store; default RESIGHT_MODELS of the replica's node"
    )
    replicas: int = Field(default=1, ge=1)
    workers: int = Field(
        0, ge=0, description="inference threads per replica; 0 = cores of the node"
    )
    threads: int = Field(default=1, ge=1, description="cores inside one inference call")
    bulk_share: float = Field(
        default=0.2, gt=0, lt=1, description="of batches, while both lanes wait"
    )
    poll_s: float = Field(default=2.0, gt=0, description="how often alias files are read")
    idle_versions: int = Field(default=2, ge=0, description="unaliased versions kept loaded")
    num_cpus: float = Field(default=0.5, gt=0, description="Ray's logical CPUs per replica")
    num_gpus: float = Field(default=0.0, ge=0)
    limits: Limits = Limits()

    def worker_count(self) -> int:
        return self.workers or usable_cores()


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
