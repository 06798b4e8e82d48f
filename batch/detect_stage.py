"""The one stage of a run, inside a Ray Data actor: a chunk of file names in, result rows out.

pa.Table of a plan -> read, decode, prepare here -> uint8 chunk -> handle (bulk lane) -> result rows
Several threads of the actor work on several chunks: while one waits for its answer, others decode.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import pyarrow as pa
import ray
import tenacity
from ray import serve as ray_serve
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from batch.isolation import ATTEMPTS, ProcessDied, isolated
from batch.read import CRASHED_READER, ReadImage, prepare_image
from batch.rows import result_table
from batch.spec import CHUNK_BYTES, RunSpec
from model_store.errors import LineageMismatch, ModelNotReady, Overloaded
from model_store.store import ModelInfo, ModelVersion
from serve.app_names import APP, deployment_of
from serve.chunks import Chunk, ChunkAnswer
from serve.priority import give_way_all

RECOVERABLE = (
    Overloaded,  # a replica's bulk lane is full
    ModelNotReady,  # it is just starting or stopping
    BackPressureError,
    ActorDiedError,  # inference is idempotent: ask another replica
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


class DetectStage:
    """A callable class for `map_batches`; built once per actor.

    `parts` are tables of the plan in the object store; a chunk is some rows of one of them. `read` makes a
    ReadImage of a row. Where it has killed this actor before, it is called in child processes, so that Ray's second
    try of the chunk finds the image, and makes a failed row of it alone.
    """

    read = staticmethod(prepare_image)

    def __init__(
        self,
        spec: RunSpec,
        model: ModelVersion,
        pool: str,
        parts: Sequence[ray.ObjectRef[pa.Table]],
    ) -> None:
        cv2.setNumThreads(1)
        give_way_all()  # as the bulk lane of the replica does: who uploads meanwhile goes first
        self._spec, self._model, self._parts_of_plan = spec, model, parts
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self._read = isolated(self.read) if restarted else self.read
        self._node = ray.get_runtime_context().get_node_id()
        self._handle: Any = ray_serve.get_deployment_handle(deployment_of(pool), APP)

    def __call__(self, chunks: pa.Table) -> pa.Table:
        return pa.concat_tables([self._chunk(**chunk) for chunk in chunks.to_pylist()])

    def _chunk(self, part: int, first: int, rows: int) -> pa.Table:
        planned = ray.get(self._parts_of_plan[part]).slice(first, rows)
        seen = pa.concat_tables([self._detected(few) for few in self._parts(planned.to_pylist())])
        nodes = pa.array([self._node] * rows, pa.string())
        replaces = planned["replaces"].combine_chunks()
        return seen.append_column("replaces", replaces).append_column("node", nodes)

    def _parts(self, rows: Sequence[dict[str, Any]]) -> Iterator[list[ReadImage]]:
        """Images read and prepared, as many as go to a replica at once: tiled ones can be large."""
        max_pixels = self._spec.megapixels * 1_000_000
        part: list[ReadImage] = []
        size = 0
        for row in rows:
            image = self._image(row, max_pixels)
            more = image.prepared.pixels.nbytes if image.prepared else 0
            if part and size + more > CHUNK_BYTES:
                yield part
                part, size = [], 0
            part.append(image)
            size += more
        if part:
            yield part

    def _image(self, row: dict[str, Any], max_pixels: int) -> ReadImage:
        try:
            return self._read(row, self._model.config.preprocess, max_pixels)
        except ProcessDied as died:
            why = f"reading this image ends its process ({died}), in each of {ATTEMPTS} attempts"
            return ReadImage(row["media_sha256"], error_code=CRASHED_READER, error_detail=why)

    def _detected(self, images: Sequence[ReadImage]) -> pa.Table:
        readable = [image.prepared for image in images if image.prepared]
        started = time.perf_counter()
        answer = self._ask(Chunk.of(str(self._model.id), readable)) if readable else None
        waited_ms = (time.perf_counter() - started) * 1e3 / len(images)
        rows = result_table(self._spec.run_id, self._model.info, images, answer)
        return rows.append_column("waited_ms", pa.array([waited_ms] * len(images), pa.float32()))

    @patiently
    def _ask(self, chunk: Chunk) -> ChunkAnswer:
        answer: ChunkAnswer = self._handle.detect_chunk.remote(chunk).result(
            timeout_s=CALL_TIMEOUT_S
        )
        require_same_model(self._model, answer.model)
        return answer


def require_same_model(asked: ModelVersion, answered: ModelInfo) -> None:
    """Raises LineageMismatch."""
    if answered.inference_key != asked.info.inference_key:
        raise LineageMismatch(
            f"asked for {asked.id} with inference key "
            f"{asked.info.inference_key[:12]}…, a replica answered with "
            f"{answered.inference_key[:12]}…; its store or code differs from this run's"
        )
