"""Engines over the shipped models, and over small ones that a test may change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.inference.engine import Engine
from tests.fixtures_local import MODELS, motion_store
from tests.serve.http_client import MakeEngine, engine_over


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = asyncio.run(engine_over(MODELS))
    yield engine
    engine.stop()


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[MakeEngine]:
    """Engines over a store with the small model `blobs`, versions 1 and 2."""
    motion_store(tmp_path, "1", "2")
    made: list[Engine] = []

    async def make(models: Path = tmp_path, **args: Any) -> Engine:
        made.append(await engine_over(models, **args))
        return made[-1]

    yield make
    for one in made:
        one.stop()
