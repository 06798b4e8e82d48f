"""Run a stage inside a Ray Data actor: a chunk of a plan in, rows of the table of the pass out.

chunk (part, first row, rows) -> rows of the plan --Stage.rows--> pa.Table; ReplicaStage.request(chunk) -> answer
Threads of the actor process chunks concurrently: while one waits for its response, others decode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import cv2
import pyarrow as pa
import ray
import tenacity
from ray import serve as ray_serve
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from model_store.errors import LineageMismatch, ModelNotReady, Overloaded
from model_store.store import ModelInfo, ModelVersion
from serve.app_names import APP, deployment_of
from serve.inference.chunks import Chunk
from serve.inference.os_priority import lower_process_priority

RECOVERABLE = (
    Overloaded,  # a replica's bulk lane is full
    ModelNotReady,  # a replica is starting or stopping
    BackPressureError,
    ActorDiedError,  # inference is idempotent: try another replica
    ActorUnavailableError,
    DeploymentUnavailableError,
)
RETRY_FOR_S = 600
CALL_TIMEOUT_S = 600
patiently = tenacity.retry(
    retry=tenacity.retry_if_exception_type(RECOVERABLE),
    stop=tenacity.stop_after_delay(RETRY_FOR_S),
    wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
    reraise=True,
)


class Stage(ABC):
    """A callable class for `map_batches`; built once per actor.

    `parts` are tables of the plan in the object store; a chunk is a range of rows of one of them.
    """

    def __init__(self, parts: Sequence[ray.ObjectRef[pa.Table]]) -> None:
        cv2.setNumThreads(1)
        lower_process_priority()  # like the bulk lane, so that uploads are served first
        self._parts_of_plan = parts
        self._node = ray.get_runtime_context().get_node_id()

    def __call__(self, chunks: pa.Table) -> pa.Table:
        return pa.concat_tables([self._chunk(**chunk) for chunk in chunks.to_pylist()])

    @abstractmethod
    def rows(self, planned: pa.Table) -> pa.Table:
        """Return the rows of these images, with `replaces`, and the columns of `Stages` if a replica made them."""

    def _chunk(self, part: int, first: int, rows: int) -> pa.Table:
        return self.rows(ray.get(self._parts_of_plan[part]).slice(first, rows))


class ReplicaStage(Stage):
    """A stage that sends chunks to the replicas of a pool."""

    def __init__(
        self, model: ModelVersion, pool: str, parts: Sequence[ray.ObjectRef[pa.Table]]
    ) -> None:
        super().__init__(parts)
        self._model = model
        self._handle: Any = ray_serve.get_deployment_handle(deployment_of(pool), APP)

    @patiently
    def request(self, method: str, chunk: Chunk) -> Any:
        """Return the answer of a replica. Raises LineageMismatch, and what the replica raises, after retries."""
        response = getattr(self._handle, method).remote(chunk)
        answer = response.result(timeout_s=CALL_TIMEOUT_S)
        require_same_model(self._model, answer.model)
        return answer


def require_same_model(asked: ModelVersion, answered: ModelInfo) -> None:
    """Raise LineageMismatch if the replica has another inference key than the run."""
    if answered.inference_key != asked.info.inference_key:
        raise LineageMismatch(
            f"requested {asked.id} with inference key "
            f"{asked.info.inference_key[:12]}…, but a replica answered with "
            f"{answered.inference_key[:12]}…; its store or code differs from this run's"
        )
