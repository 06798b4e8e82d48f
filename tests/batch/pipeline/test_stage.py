"""Test the base of the stages: retries, and answers of another model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batch.pipeline.stage import ReplicaStage, StageProcess
from model_store.errors import LineageMismatch, ModelNotReady, Overloaded
from model_store.store import ModelInfo, ModelVersion
from serve.inference.chunks import Chunk


class Replicas:
    """Each call takes the next outcome, an answer or an error."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes, self.calls = list(outcomes), list[Chunk]()

    def answer(self, method: str, chunk: Chunk) -> Any:
        self.calls.append(chunk)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Numbers(ReplicaStage):
    """Its rows are those of the plan."""

    def rows(self, planned: pa.Table) -> pa.Table:
        return planned


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplicaStage.request.retry, "sleep", lambda _: None)  # type: ignore[attr-defined]


def stage(model: ModelVersion, replicas: Replicas) -> Numbers:
    return Numbers(StageProcess("node", False, replicas), model)


def answer(info: ModelInfo) -> Any:
    return SimpleNamespace(model=info)


def chunk(model: ModelVersion) -> Chunk:
    return Chunk.of_inputs(str(model.id), np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("busy", [Overloaded("busy"), ModelNotReady("starting")])
def test_a_busy_replica_gets_the_same_chunk_again(motion: ModelVersion, busy: Exception) -> None:
    wanted, sent = answer(motion.info), chunk(motion)
    replicas = Replicas(busy, wanted)
    assert stage(motion, replicas).request("detect_chunk", sent) is wanted
    assert replicas.calls == [sent, sent]


@pytest.mark.parametrize(("outcome", "error"), [("another", LineageMismatch), (ValueError("a bug"), ValueError)])
def test_another_model_and_an_unknown_error_are_not_tried_again(
    motion: ModelVersion, outcome: Any, error: type[Exception]
) -> None:
    if outcome == "another":
        outcome = answer(replace(motion.info, inference_key="another key"))
    replicas = Replicas(outcome)
    with pytest.raises(error):
        stage(motion, replicas).request("detect_chunk", chunk(motion))
    assert len(replicas.calls) == 1
