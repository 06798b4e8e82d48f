"""Where everything is and what is allowed: environment for places and secrets, arguments for the rest.

RESIGHT_HOME holds models/, tables/, logs/ and the cluster's state; RESIGHT_MODELS, RESIGHT_TABLES and
RESIGHT_LOGS move those elsewhere, the first two also to s3://.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_store.deployment import DEFAULT_POOL
from model_store.errors import StorageUnreachable
from model_store.machine import usable_cores
from model_store.names import NAME
from model_store.storage import absolute, is_local


class Settings(BaseSettings):
    """From RESIGHT_* variables."""

    model_config = SettingsConfigDict(env_prefix="RESIGHT_", frozen=True, extra="ignore")

    home: str = Field(default="~/.resight", description="folder for all state")
    models: str = Field(default="", description="model store, default HOME/models; s3:// allowed")
    tables: str = Field(default="", description="Delta tables, default HOME/tables; s3:// allowed")
    logs: str = Field(default="", description="logs of Ray's start, default HOME/logs")
    token: str = Field(default="", repr=False, description="bearer token with all scopes")
    tokens: str = Field(default="", description="token file, default HOME/tokens.json; s3:// too")
    policy: str = Field(default="", description="policy of runs, default HOME/policy.toml")
    uploads: str = Field(
        default="",
        description="pictures sent to /v1/images, default: beside the tables; s3:// allowed",
    )
    snips: str = Field(default="", description="crops, default HOME/snips; s3:// allowed")
    endpoint: str = Field(
        default="", description="URL of the HTTP API of a cluster that this home did not start"
    )
    app: str = Field(default="", description="applications, default serve/app.yaml as installed")
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
    def new_tables_url(self) -> str:
        """`tables_url`, for a command that may create the tables.

        Raises StorageUnreachable where they would lie in a folder that RESIGHT_TABLES or RESIGHT_HOME names and that
        does not exist: on a disk that is not mounted, they would be a second, empty catalogue.
        """
        named = "tables" if self.tables else "home"
        place = self.tables or self.home
        above = Path(absolute(place)).parent
        if named in self.model_fields_set and is_local(place) and not above.exists():
            raise StorageUnreachable(
                f"RESIGHT_{named.upper()} is {place}, and {above} does not exist; is it mounted? To create it: "
                f"mkdir -p {above}"
            )
        return self.tables_url

    @property
    def tokens_url(self) -> str:
        return absolute(self.tokens or str(self.home_path / "tokens.json"))

    @property
    def ray_token_path(self) -> Path:
        return self.home_path / "ray_token"

    @property
    def policy_path(self) -> Path:
        return Path(absolute(self.policy)) if self.policy else self.home_path / "policy.toml"

    @property
    def uploads_url(self) -> str:
        """By default where the tables are, so that all nodes see it that see those."""
        tables = self.tables_url
        beside, _, _ = tables.rpartition("/")
        return absolute(self.uploads or f"{tables if beside.endswith('/') else beside}/uploads")

    @property
    def snips_url(self) -> str:
        return absolute(self.snips or str(self.home_path / "snips"))

    @property
    def logs_path(self) -> Path:
        return Path(absolute(self.logs)) if self.logs else self.home_path / "logs"


class Limits(BaseModel):
    """Bounds of one request. Over them: 413 (size), 429 (queue), 507 (disk)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_mib: int = Field(default=32, ge=1)
    body_s: int = Field(
        default=60, ge=1, description="for a body to arrive; its place is taken meanwhile"
    )
    answer_s: int = Field(default=60, ge=1, description="for an answer to be read; it is cut then")
    answers_mib: int = Field(
        default=256, ge=1, description="of answers being read at a time, per replica"
    )
    megapixels: int = Field(default=100, ge=1, description="by the image header, before decoding")
    online_queue: int = Field(
        default=64, ge=1, description="images admitted at a time, per replica"
    )
    bulk_queue: int = Field(default=2048, ge=1, description="images of chunks waiting, per replica")
    online_mib: int = Field(
        default=512, ge=1, description="of images waiting, encoded and prepared, per replica"
    )
    bulk_mib: int = Field(default=2048, ge=1, description="likewise")
    free_mib: int = Field(
        default=1024, ge=0, description="that uploads leave free on their disk; 0: nothing"
    )


class Pool(BaseModel):
    """Replicas on like hardware."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(default=1, ge=1, description="at least; exactly, without max_replicas")
    max_replicas: int = Field(default=0, ge=0, description="Ray adds and removes up to so many")
    target_ongoing: float = Field(
        default=8.0, gt=0, description="requests and chunks a replica that autoscaling aims at"
    )
    workers: int = Field(
        0,
        ge=0,
        description="inference threads per replica; 0 = one per core that the replica may use",
    )
    threads: int = Field(default=1, ge=1, description="cores inside one inference call")
    num_cpus: float = Field(default=0.5, gt=0, description="Ray's logical CPUs per replica")
    num_gpus: float = Field(default=0.0, ge=0)
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="Ray's custom resources per replica: they choose the nodes",
    )

    @model_validator(mode="after")
    def _at_least_before_at_most(self) -> Self:
        if self.max_replicas and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than replicas")
        return self

    def worker_count(self) -> int:
        return self.workers or usable_cores()


class DetectArgs(Pool):
    """Arguments of the `detect` application (`args:` in serve/app.yaml): the pool `default`, which listens,
    the other pools, and what is the same in all.
    """

    models: str = Field(
        default="", description="model store; default RESIGHT_MODELS of the replica's node"
    )
    pools: dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], Pool] = Field(
        default_factory=dict, description="other hardware, by the name deployment.json uses"
    )
    _pool: str = PrivateAttr(default=DEFAULT_POOL)
    bulk_share: float = Field(
        default=0.2, gt=0, lt=1, description="of batches, while both lanes wait"
    )
    poll_s: float = Field(default=2.0, gt=0, description="how often alias files are read")
    idle_versions: int = Field(default=2, ge=0, description="unaliased versions kept loaded")
    retain_s: float = Field(
        default=600.0, ge=0, description="how long unused ones stay: the way back is instant"
    )
    load_timeout_s: float = Field(default=300.0, gt=0, description="of a rollout's new version")
    limits: Limits = Limits()
    require_token: bool = Field(
        default=True,
        description="even while no token exists; 'resight up' says true beyond loopback",
    )
    cors_origins: list[Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")]] = Field(
        default_factory=list, description="sites whose pages may ask: scheme://host:port, exactly"
    )

    @model_validator(mode="after")
    def _one_default(self) -> Self:
        if DEFAULT_POOL in self.pools:
            raise ValueError(f"the pool '{DEFAULT_POOL}' is what stands beside `pools`")
        return self

    @property
    def pool(self) -> str:
        """Whose arguments these are."""
        return self._pool

    def of_pool(self, name: str) -> DetectArgs:
        """The same arguments, as the replicas of another pool get them."""
        hardware = {field: getattr(self.pools[name], field) for field in Pool.model_fields}
        copy = self.model_copy(update=hardware)
        copy._pool = name
        return copy
