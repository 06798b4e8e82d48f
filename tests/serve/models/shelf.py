"""A store of empty versions and the models of a replica over it; loading is a function that can fail."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_store.detector import LoadedDetector
from model_store.errors import ModelRefused
from model_store.listed_store import ListedStore
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.inference.admission import Threads
from serve.models.alias_poller import AliasPoller
from serve.models.loaded_models import LoadedModels, NoProver
from serve.models.pools import Placement
from serve.models.resolver import ModelResolver
from serve.rollout.sandbox import Proof
from serve.rollout.state import AliasState, ModelState, update_state
from tests.fixtures_local import write_json


class Shelf:
    """A store of empty versions and the models over it; `loads` lists what was loaded."""

    def __init__(self, place: Path, idle_versions: int = 2, **options: Any) -> None:
        self.place = place
        self.loads: list[str] = []
        self.broken: set[str] = set()
        self.store = ModelStore(str(place))
        self.prover = FakeProver(self.store)
        self.models = LoadedModels(self._load, self.prover, idle_versions)
        polled = ListedStore(self.store.url)
        self.aliases = AliasPoller(
            polled, self.models, Placement(polled), lambda model: model, poll_s=3600, **{"retry_s": 0, **options}
        )
        self.resolver = ModelResolver(self.store, self.models, self.aliases, Threads(1, "", 64))

    def add(self, name: str, *versions: str) -> None:
        for version in versions:
            write_json(self.place / name / version / "READY", {"files": {}})

    def alias(self, name: str, **aliases: str) -> None:
        write_json(self.place / name / "aliases.json", aliases)

    @property
    def failures(self) -> dict[str, str]:
        return {label: str(error) for label, error in self.aliases.errors.items()}

    @property
    def loaded(self) -> list[str]:
        return [str(version) for version in self.models.names]

    async def answers(self, ref: str) -> str:
        """Which version answers to a reference."""
        return str((await self.resolver.get(ref)).detector)

    def _load(self, version: VersionId, digest: str = "") -> Any:
        self.loads.append(str(version))
        if str(version) in self.broken:
            raise ModelRefused(f"{version} is broken")
        return NamedDetector(version)


class NamedDetector(LoadedDetector):
    """A detector that can only be told from others."""

    def __init__(self, version: VersionId) -> None:
        object.__setattr__(self, "version", version)

    def __str__(self) -> str:
        return f"detector of {self.version}"


class FakeProver(NoProver):
    """Refuses some versions; lists what it was asked for, and what was loaded inside `loading`."""

    def __init__(self, store: ModelStore) -> None:
        super().__init__(store)
        self.refused: tuple[str, ...] = ()
        self.hanging: tuple[str, ...] = ()
        self.ends = asyncio.Event()
        self.proved: list[str] = []
        self.granted: list[str] = []
        self.needs_bytes: dict[str, int] = {}
        self.errors: dict[str, Exception] = {}

    async def prove(self, version: VersionId) -> Proof:
        if version.name in self.hanging:
            await self.ends.wait()
        self.proved.append(str(version))
        if error := self.errors.get(str(version)):
            raise error
        if version.version in self.refused:
            raise ModelRefused("it ended the process that loaded it")
        proof = await super().prove(version)
        return replace(proof, rss_bytes=self.needs_bytes.get(str(version), 1000))

    def loading(self, version: VersionId) -> AbstractAsyncContextManager[None]:
        self.granted.append(str(version))
        return super().loading(version)


def stocked(place: Path, **options: Any) -> Shelf:
    shelf = Shelf(place / "models", **options)
    shelf.add("deer", "1", "2")
    shelf.alias("deer", production="1")
    return shelf


def write_state(store: ModelStore, name: str, new: ModelState) -> None:
    update_state(store, name, lambda _: new)


def state(generation: int, active: str = "1", **more: Any) -> ModelState:
    now = datetime.now(UTC)
    alias = AliasState.model_validate({"active": active, "since": now, **more})
    return ModelState(generation=generation, aliases={"production": alias})
