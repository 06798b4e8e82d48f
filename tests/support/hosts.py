"""A host of runs without processes: tests replace `HOST.rows` by what the stage returns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

from batch.planning.plan import Plan
from model_store.store import ModelVersion


class FakeHost:
    """Implements `batch.pipeline.stage.RunHost`."""

    def leased(self, model: ModelVersion, run_id: str) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def threads(self, spec: Any) -> int:
        return 1

    def rows(self, spec: Any, plan: Plan) -> Iterator[pa.Table]:
        raise AssertionError("this test runs no stage")


HOST = FakeHost()
