"""Resolve the model of a request to a loaded version: by the alias table, or by its exact name.

"deer", "deer:staging", "deer@2" --ModelResolver.get--> ResolvedModel; an exact version is loaded if that is allowed
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from model_store.crop_model import CropModel
from model_store.detector import LoadedDetector
from model_store.errors import SOON_S, Forbidden, ModelNotReady, ResightError
from model_store.load import Loaded, require
from model_store.names import ModelRef, VersionId, parse_ref
from model_store.store import ModelStore
from serve.inference.admission import Threads
from serve.models.alias_poller import AliasPoller
from serve.models.loaded_models import LoadedModels
from serve.rollout.state import read_state

C = TypeVar("C", bound=CropModel)
YOUNG_S = 10.0
"""Seconds after its first request during which a replica reads the state file before each request.

It may have started too late to be notified of a switch, and once `promote` has returned, the old version must not
answer.
"""
MAY_LOAD: ContextVar[bool] = ContextVar("may_load", default=True)
"""True if the current request may load an exact version that no alias and no run needs here (`serve/auth/guard.py`)."""


@contextlib.contextmanager
def loads_if(allowed: bool) -> Generator[None]:
    """Allow the block to load exact versions, if `allowed` and if that was allowed before."""
    token = MAY_LOAD.set(MAY_LOAD.get() and allowed)
    try:
        yield
    finally:
        MAY_LOAD.reset(token)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A loaded version that was requested through an alias or by its exact name."""

    model: Loaded
    alias: str | None

    @property
    def detector(self) -> LoadedDetector:
        """The model. Raises BadRequest if it is of another kind."""
        return require(LoadedDetector, self.model)

    def crop_model(self, kind: type[C]) -> C:
        """Return the model of crops. Raises BadRequest if it is of another kind."""
        return require(kind, self.model)


class ModelResolver:
    """Resolves references with the current table of `aliases`; `lookups` are threads that read the store."""

    def __init__(self, store: ModelStore, models: LoadedModels, aliases: AliasPoller, lookups: Threads) -> None:
        self._store, self._models, self._aliases, self._lookups = store, models, aliases, lookups
        self._young_until: float | None = None

    async def get(self, text: str, sample: float = 1.0) -> ResolvedModel:
        """Resolve a reference. Raises BadRequest, ModelNotFound, Forbidden, ModelError, Overloaded.

        An exact version that is not loaded here is loaded if an alias or a run needs it, or if the request may load
        it (MAY_LOAD). `sample`, 0 to 1, decides whether a canary answers.
        """
        ref = parse_ref(text)
        if ref.alias is None:
            return await self._exact(VersionId(ref.name, ref.version or ""))
        await self._catch_up(ref.name)
        resolved = self._aliases.table.resolve(ref, sample, self._models)
        version, alias = resolved or await self._resolve_new(text, ref, sample)
        return ResolvedModel(self._models.use(version), alias) if alias else await self._exact(version)

    def shadow(self, name: str, alias: str | None, sample: float) -> LoadedDetector | None:
        """Return the shadow that also gets this image, or None if there is none or it is not loaded."""
        version = self._aliases.table.shadow(name, alias, sample)
        return require(LoadedDetector, self._models.model(version)) if version and version in self._models else None

    async def _resolve_new(self, text: str, ref: ModelRef, sample: float) -> tuple[VersionId, str | None]:
        """Read the store again for an alias without a version here: it may be new, or may have failed to load."""
        await self._lookups.run(self._store.resolve, ref)
        await self._aliases.refresh()
        resolved = self._aliases.table.resolve(ref, sample, self._models)
        if resolved is None:
            error = self._aliases.errors.get(f"{ref.name}:{ref.alias}") or ModelNotReady(
                f"it is being proved, or was refused: see GET /v1/models/{ref.name}", SOON_S
            )
            raise ModelNotReady(f"{text} cannot answer yet: {error}", error.retry_after_s)
        return resolved

    async def _exact(self, version: VersionId) -> ResolvedModel:
        if version not in self._models:
            await self._lookups.run(self._store.resolve, parse_ref(str(version)))
            self._require_may_load(version)
            await self._aliases.ensure(version)
        return ResolvedModel(self._models.use(version), None)

    def _require_may_load(self, version: VersionId) -> None:
        """Raise Forbidden unless the request may load this version here."""
        needed = self._aliases.table.needs(version) or self._models.holders(version)
        if not (MAY_LOAD.get() or needed):
            raise Forbidden(
                f"{version} is not loaded here, and no alias or run needs it: send a token with the scope admin to "
                "load it"
            )

    async def _catch_up(self, name: str) -> None:
        """Refresh within YOUNG_S if the state file of a model is newer than the state here."""
        now = time.monotonic()
        if self._young_until is None:
            self._young_until = now + YOUNG_S
        if now > self._young_until:
            return
        with contextlib.suppress(ResightError):  # keep serving while the store is unavailable
            state = await asyncio.to_thread(read_state, self._store, name)
            if state.generation > self._aliases.table.state(name).generation:
                await self._aliases.refresh()
