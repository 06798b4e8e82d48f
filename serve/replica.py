"""The detector replica: HTTP ingress and detector in one process, so that a request makes one hop.

Ray calls `__serve_build_asgi_app__` after the constructor and serves that app over HTTP; the other
methods are reached by handle. All logic is in `engine.py`.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serve.chunks import Chunk, ChunkAnswer
from serve.engine import Engine
from serve.http_api import build_http_api
from serve.logs import configure_logs
from serve.settings import DetectArgs, Settings


class DetectorReplica:
    """Ready once every aliased version is verified, loaded and has reproduced its probe."""

    async def __init__(self, args: DetectArgs) -> None:
        configure_logs()
        self._engine = Engine(args)
        await self._engine.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_http_api(self._engine, Settings().token)

    async def detect_chunk(self, chunk: Chunk) -> ChunkAnswer:
        return await self._engine.detect_chunk(chunk)

    async def ensure(self, model: str) -> str:
        """Load a version if it is not here yet; its inference key. Raises ModelError."""
        return (await self._engine.residents.get(model)).detector.info.inference_key

    async def reload(self) -> dict[str, Any]:
        """Follow the alias files now; what is loaded and what failed."""
        await self._engine.residents.refresh()
        residents = self._engine.residents
        loaded = {str(v): residents.aliases_of(v) for v in residents.loaded}
        return {"loaded": loaded, "failures": dict(residents.failures)}

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.stop()
