"""Calls of a host to a replica: the chunks of a run, and loads, switches and releases of versions. No Ray."""

from __future__ import annotations

from typing import Any

from model_store.names import parse_version
from serve.inference.chunks import Chunk, ChunkAnswer, LogitsAnswer
from serve.inference.engine import Engine
from serve.models.pools import Serving
from serve.rollout.state import ModelState


class Replica:
    """An engine and its models. A cluster calls it by handle, so arguments and answers are plain."""

    engine: Engine

    async def serving(self) -> Serving:
        return self.engine.serving()

    async def detect_chunk(self, chunk: Chunk) -> ChunkAnswer:
        return await self.engine.detect_chunk(chunk)

    async def classify_chunk(self, chunk: Chunk) -> LogitsAnswer:
        return await self.engine.classify_chunk(chunk)

    async def holds(self, version: str, digest: str) -> bool:
        """Return whether a version is loaded from files of this digest.

        This counts as a use, so that a version that a rollout relies on is not released as idle.
        """
        exact, models = parse_version(version), self.engine.models
        if exact in models:
            models.use(exact)
        return models.holds(exact, digest)

    async def ensure(self, version: str, digest: str) -> str:
        """Load a version from files of this digest unless it is loaded; return its inference key. Raises ModelError."""
        return await self.engine.ensure(parse_version(version), digest)

    async def activate(self, name: str, state: dict[str, Any], pool: str) -> None:
        """Set the pool of a model and, in that pool, activate its state. Raises ModelError, Conflict."""
        self.engine.placement.set(name, pool)
        if pool == self.engine.args.pool:
            await self.engine.aliases.activate(name, ModelState.model_validate(state))

    async def release(self, version: str) -> bool:
        """Release a version; return False if it was not loaded. Raises Conflict if an alias or a run needs it."""
        return await self.engine.aliases.release(parse_version(version))

    async def lease(self, version: str, holder: str, for_s: float) -> str:
        """Prove and load a version if necessary, protect it from release, and return its inference key.

        With `for_s` 0, end the lease and return "". Raises ModelError.
        """
        exact, key = parse_version(version), ""
        if for_s > 0:
            key = await self.engine.ensure(exact)
        self.engine.models.lease(exact, holder, for_s)
        return key
