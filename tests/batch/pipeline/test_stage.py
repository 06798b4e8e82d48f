"""Test the base of the stages, without Ray: chunks of a plan, retries, and answers of another model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import batch.pipeline.stage
from batch.pipeline.stage import ReplicaStage
from model_store.errors import LineageMismatch, Overloaded
from model_store.store import ModelInfo, ModelVersion
from serve.inference.chunks import Chunk


class Replica:
    """A handle: each call takes the next outcome, an answer or an error."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes, self.calls = list(outcomes), list[Chunk]()
        self.detect_chunk = SimpleNamespace(remote=self._remote)

    def _remote(self, chunk: Chunk) -> Any:
        self.calls.append(chunk)
        return self

    def result(self, timeout_s: float) -> Any:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Numbers(ReplicaStage):
    """Its rows are those of the plan."""

    def rows(self, planned: pa.Table) -> pa.Table:
        return planned


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(get_node_id=lambda: "node")
    monkeypatch.setattr(batch.pipeline.stage.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(batch.pipeline.stage.ray, "get", lambda part: part)
    monkeypatch.setattr(batch.pipeline.stage, "lower_process_priority", lambda: None)
    monkeypatch.setattr(ReplicaStage.request.retry, "sleep", lambda _: None)  # type: ignore[attr-defined]


def stage(monkeypatch: pytest.MonkeyPatch, model: ModelVersion, replica: Replica) -> Numbers:
    handles = batch.pipeline.stage.ray_serve
    monkeypatch.setattr(handles, "get_deployment_handle", lambda *_: replica)
    parts: Any = [pa.table({"n": [0, 1, 2]}), pa.table({"n": [3, 4]})]
    return Numbers(model, "default", parts)


def answer(info: ModelInfo) -> Any:
    return SimpleNamespace(model=info)


def chunk(model: ModelVersion) -> Chunk:
    return Chunk.of_inputs(str(model.id), np.zeros((1, 8, 8, 3), np.uint8))


def test_a_chunk_is_a_range_of_rows_of_a_part(
    monkeypatch: pytest.MonkeyPatch, motion: ModelVersion
) -> None:
    chunks = [{"part": 0, "first": 1, "rows": 2}, {"part": 1, "first": 0, "rows": 1}]
    rows = stage(monkeypatch, motion, Replica())(pa.Table.from_pylist(chunks))
    assert rows["n"].to_pylist() == [1, 2, 3]


def test_a_busy_replica_gets_the_same_chunk_again(
    monkeypatch: pytest.MonkeyPatch, motion: ModelVersion
) -> None:
    wanted, sent = answer(motion.info), chunk(motion)
    replica = Replica(Overloaded("busy"), wanted)
    assert stage(monkeypatch, motion, replica).request("detect_chunk", sent) is wanted
    assert replica.calls == [sent, sent]


@pytest.mark.parametrize(
    ("outcome", "error"), [("another", LineageMismatch), (ValueError("a bug"), ValueError)]
)
def test_another_model_and_an_unknown_error_are_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, motion: ModelVersion, outcome: Any, error: type[Exception]
) -> None:
    if outcome == "another":
        outcome = answer(replace(motion.info, inference_key="another key"))
    replica = Replica(outcome)
    with pytest.raises(error):
        stage(monkeypatch, motion, replica).request("detect_chunk", chunk(motion))
    assert len(replica.calls) == 1
