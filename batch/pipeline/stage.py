"""The stages of a pass: rows of a plan in, rows of its table out; the same on every host.

rows of the plan --Stage.rows--> pa.Table; ReplicaStage.request(chunk) -> answer of a replica

There are two hosts. `on_cluster.py` runs stages in actors of Ray Data, and replicas of the cluster answer their chunks.
`here.py` runs them in processes of this machine, which load the model themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import tenacity

from batch.runs.spec import PassSpec
from model_store.errors import LineageMismatch, ModelNotReady, Overloaded
from model_store.store import ModelVersion
from serve.inference.chunks import Chunk

if TYPE_CHECKING:
    from batch.planning.plan import Plan

RETRY_FOR_S = 600
patiently = tenacity.retry(
    retry=tenacity.retry_if_exception_type(
        (Overloaded, ModelNotReady)  # a bulk lane is full; a replica starts, stops or has died
    ),
    stop=tenacity.stop_after_delay(RETRY_FOR_S),
    wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
    reraise=True,
)


class RunHost(Protocol):
    """The machines that execute a run."""

    def leased(self, model: ModelVersion, run_id: str) -> AbstractContextManager[None]:
        """Keep the version answered while the block runs. Raises ModelError."""
        ...

    def threads(self, spec: PassSpec) -> int:
        """Return the number of threads that read and decode, in all processes."""
        ...

    def rows(self, spec: PassSpec, plan: Plan) -> Iterator[pa.Table | None]:
        """Yield what the stage returns, in any order, and maybe None after a time without. Raises its errors."""
        ...


class Answers(Protocol):
    """Replicas, as a stage sees them."""

    def answer(self, method: str, chunk: Chunk) -> Any:
        """Return the answer of a replica to `detect_chunk` or `crops_chunk`. Raises ModelError, Overloaded."""
        ...


@dataclass(frozen=True, slots=True)
class StageProcess:
    """The process that runs a stage. `careful`: it takes the place of one that was killed; `node` names its machine."""

    node: str
    careful: bool
    replicas: Answers | None


class Stage(ABC):
    """Built once per process; its threads call `rows` at the same time, with different chunks of the plan."""

    def __init__(self, process: StageProcess) -> None:
        self._process = process

    @abstractmethod
    def rows(self, planned: pa.Table) -> pa.Table:
        """Return the rows of these images with `replaces`; with EXTRA (`runs/progress.py`) if a replica answered."""


class ReplicaStage(Stage):
    """A stage that sends chunks to replicas."""

    def __init__(self, process: StageProcess, model: ModelVersion) -> None:
        super().__init__(process)
        self._model = model

    @patiently
    def request(self, method: str, chunk: Chunk) -> Any:
        """Return the answer of a replica. Raises LineageMismatch, and what the replica raises, after retries."""
        assert self._process.replicas is not None
        answer = self._process.replicas.answer(method, chunk)
        key, answered = self._model.info.inference_key, answer.model.inference_key
        if answered != key:
            raise LineageMismatch(
                f"requested {self._model.id} with inference key {key[:12]}…, but a replica answered with "
                f"{answered[:12]}…; its store or code differs from this run's"
            )
        return answer
