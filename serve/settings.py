"""Settings: environment variables for places and secrets, deployment arguments for everything else.

RESIGHT_HOME contains models/, tables/, logs/ and the state of the cluster. RESIGHT_MODELS, RESIGHT_TABLES and
RESIGHT_LOGS move these folders, the first two also to s3://.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_store.deployment import DEFAULT_POOL
from model_store.errors import StorageUnreachable
from model_store.frozen import Frozen
from model_store.machine import usable_cores
from model_store.names import NAME
from model_store.storage import absolute, is_local

APP, DEPLOYMENT = "detect", "Detector"
"""Names of the application of the detectors, and of its deployment for the default pool."""


def deployment_of(pool: str) -> str:
    return DEPLOYMENT if pool == DEFAULT_POOL else f"{DEPLOYMENT}-{pool}"


class Settings(BaseSettings):
    """Places and secrets, read from RESIGHT_* variables."""

    model_config = SettingsConfigDict(env_prefix="RESIGHT_", env_ignore_empty=True, frozen=True, extra="ignore")

    home: str = Field(default="~/.resight", description="folder for all state")
    models: str = Field(default="", description="model store, default HOME/models; may be s3://")
    tables: str = Field(default="", description="Delta tables, default HOME/tables; may be s3://")
    logs: str = Field(default="", description="logs of Ray's start, default HOME/logs")
    token: str = Field(default="", repr=False, description="bearer token with all scopes")
    tokens: str = Field(default="", description="token file, default HOME/tokens.json; may be s3://")
    policy: str = Field(default="", description="policy of runs, default HOME/policy.toml")
    uploads: str = Field(default="", description="images sent to /v1/images, default: next to the tables; may be s3://")
    snips: str = Field(default="", description="crops, default HOME/snips; may be s3://")
    endpoint: str = Field(default="", description="URL of the HTTP API of a cluster that this home did not start")
    app: str = Field(default="", description="Serve config file, default: the installed serve/app.yaml")
    address: str = Field(
        default="", description="Ray dashboard URL of a cluster that 'resight up' did not start on this machine"
    )

    @property
    def home_path(self) -> Path:
        """Raise StorageUnreachable if it is a file."""
        path = Path(absolute(self.home))
        if os.path.isfile(path):
            raise StorageUnreachable(f"cannot use {path} as the home: it is a file; set RESIGHT_HOME to a folder")
        return path

    @property
    def models_url(self) -> str:
        return absolute(self.models or str(self.home_path / "models"))

    @property
    def tables_url(self) -> str:
        return absolute(self.tables or str(self.home_path / "tables"))

    @property
    def new_tables_url(self) -> str:
        """`tables_url`, for a command that may create the tables.

        Raises StorageUnreachable if RESIGHT_TABLES or RESIGHT_HOME is set and its parent folder does not exist, or if
        this home had tables there and nothing is left: if its disk is not mounted, new tables would be a second, empty
        catalogue.
        """
        field = "tables" if self.tables else "home"
        place = self.tables or self.home
        parent = Path(absolute(place)).parent
        if field in self.model_fields_set and is_local(place) and not parent.exists():
            raise StorageUnreachable(
                f"RESIGHT_{field.upper()} is {place}, and {parent} does not exist; is it mounted? To create it: "
                f"mkdir -p {parent}"
            )
        url = self.tables_url
        if is_local(url) and _has_nothing(Path(url)) and self._remembered_tables() == url:
            raise StorageUnreachable(
                f"there is nothing at {url}, where the tables of this home were; is their disk mounted? To begin new "
                f"tables: rm {shlex.quote(str(self._tables_mark))}"
            )
        return url

    def remember_tables(self) -> str:
        """Record the tables that exist as those of this home; return the others that were recorded, if any."""
        url, former = self.tables_url, self._remembered_tables()
        if url == former or (is_local(url) and not Path(url, "media").is_dir()):
            return ""
        with contextlib.suppress(OSError):  # a home of another user
            self.home_path.mkdir(parents=True, exist_ok=True)
            self._tables_mark.write_text(url)
        return former

    @property
    def _tables_mark(self) -> Path:
        return self.home_path / "tables.url"

    def _remembered_tables(self) -> str:
        with contextlib.suppress(OSError):
            return self._tables_mark.read_text().strip()
        return ""

    @property
    def mounted_tables_url(self) -> str:
        """`tables_url`, for a command that reads the tables. Raises as `new_tables_url`.

        With RESIGHT_ADDRESS, maybe only the nodes of that cluster have the folder, and nothing is raised.
        """
        return self.tables_url if self.address else self.new_tables_url

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
        """Folder of uploads; by default next to the tables, so that every node that can read the tables can read it."""
        tables = self.tables_url
        parent, _, _ = tables.rpartition("/")
        return absolute(self.uploads or f"{tables if parent.endswith('/') else parent}/uploads")

    @property
    def snips_url(self) -> str:
        return absolute(self.snips or str(self.home_path / "snips"))

    @property
    def index_path(self) -> Path:
        """Folder of the indexes of images."""
        return self.home_path / "index"

    @property
    def vectors_path(self) -> Path:
        """Folder of the indexes of vectors."""
        return self.home_path / "vectors"

    @property
    def logs_path(self) -> Path:
        return Path(absolute(self.logs)) if self.logs else self.home_path / "logs"


def _has_nothing(path: Path) -> bool:
    """Return whether a folder is empty, or does not exist in an empty one, such as a mount point without its disk."""
    folder = path if path.exists() else path.parent
    return folder.is_dir() and not any(folder.iterdir())


class Limits(Frozen):
    """Bounds of requests. A request that exceeds one gets 413 (size), 429 (queue) or 507 (disk)."""

    body_mib: int = Field(default=32, ge=1, description="MiB of a body")
    body_s: int = Field(default=60, ge=1, description="seconds for a body to arrive, during which it occupies a place")
    answer_s: int = Field(default=60, ge=1, description="seconds for a client to read an answer, which is then cut off")
    answers_mib: int = Field(default=256, ge=1, description="MiB of answers that clients are reading, per replica")
    megapixels: int = Field(default=100, ge=1, description="megapixels of an image, by its header, before decoding")
    online_queue: int = Field(default=64, ge=1, description="online images admitted concurrently, per replica")
    bulk_queue: int = Field(default=2048, ge=1, description="images of chunks that wait, per replica")
    online_mib: int = Field(default=512, ge=1, description="MiB of online images that wait, per replica")
    bulk_mib: int = Field(default=2048, ge=1, description="MiB of images of chunks that wait, per replica")
    free_mib: int = Field(default=1024, ge=0, description="MiB that uploads leave free on their disk; 0: no check")
    fetch_s: int = Field(default=30, ge=1, description="seconds for an image that a request names by URL to arrive")


class Pool(Frozen):
    """Replicas with the same hardware."""

    replicas: int = Field(default=1, ge=1, description="number of replicas; the minimum if max_replicas is set")
    max_replicas: int = Field(
        default=0, ge=0, description="maximum number of replicas with autoscaling; 0: no autoscaling"
    )
    target_ongoing: float = Field(
        default=8.0, gt=0, description="requests and chunks per replica that autoscaling aims for"
    )
    workers: int = Field(
        default=0, ge=0, description="inference threads per replica; 0: one per core that the replica may use"
    )
    threads: int = Field(default=1, ge=1, description="threads of one inference call")
    num_cpus: float = Field(default=0.5, gt=0, description="Ray's logical CPUs per replica")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs per replica")
    resources: dict[str, float] = Field(
        default_factory=dict, description="Ray's custom resources per replica, which select the nodes"
    )

    @model_validator(mode="after")
    def _require_ordered_replicas(self) -> Self:
        if self.max_replicas and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than replicas {self.replicas}")
        return self

    def worker_count(self) -> int:
        """Return the number of inference threads, resolving 0."""
        return self.workers or usable_cores()


def _network(text: str) -> str:
    return str(ip_network(text))  # its ValueError names the text


class DetectArgs(Pool):
    """Arguments of the `detect` application (`args:` in serve/app.yaml).

    The fields of Pool are those of the pool `default`, which serves HTTP; `pools` are the others, and the remaining
    fields apply to all.
    """

    models: str = Field(default="", description="model store, default RESIGHT_MODELS of the replica's node")
    pools: dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], Pool] = Field(
        default_factory=dict, description="other pools, by the name that deployment.json uses"
    )
    _pool: str = PrivateAttr(default=DEFAULT_POOL)
    image_hosts: list[Annotated[str, Field(pattern=r"^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]+)?$")]] = Field(
        default_factory=list,
        description="hosts from which images may be fetched by URL, as name or name:port; none: no image",
    )
    image_networks: list[Annotated[str, AfterValidator(_network)]] = Field(
        default_factory=list,
        description="private networks in which these hosts may lie, as 10.0.0.0/8; none: public addresses only",
    )
    bulk_share: float = Field(default=0.2, gt=0, lt=1, description="share of bulk batches while both lanes have work")
    poll_s: float = Field(default=2.0, gt=0, description="seconds between readings of the alias files")
    idle_versions: int = Field(default=2, ge=0, description="maximum number of loaded versions without an alias")
    retain_s: float = Field(
        default=600.0, ge=0, description="seconds that an unused version stays loaded, so that a rollback is immediate"
    )
    load_timeout_s: float = Field(default=300.0, gt=0, description="seconds for a rollout's new version to load")
    limits: Limits = Limits()
    require_token: bool = Field(
        default=True,
        description="whether requests need a token even if none exists; 'resight up' sets it beyond loopback",
    )
    cors_origins: list[Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")]] = Field(
        default_factory=list, description="sites allowed to send requests from a browser, exactly as scheme://host:port"
    )

    @model_validator(mode="after")
    def _require_one_default(self) -> Self:
        if DEFAULT_POOL in self.pools:
            raise ValueError(f"`pools` contains '{DEFAULT_POOL}': set the fields of that pool next to `pools`")
        return self

    @property
    def pool(self) -> str:
        """Name of the pool to which these arguments apply."""
        return self._pool

    def of_pool(self, name: str) -> DetectArgs:
        """Return these arguments with the hardware of another pool."""
        hardware = {field: getattr(self.pools[name], field) for field in Pool.model_fields}
        copy = self.model_copy(update=hardware)
        copy._pool = name
        return copy
