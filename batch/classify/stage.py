"""The stage of a classify run inside a Ray Data actor: rows of a plan in, rows of `classifications` out.

row of an image -> read, decode once -> its crops, prepared -> uint8 chunks -> handle (bulk lane) -> rows
Several threads of the actor work on several chunks: while one waits for its answer, others decode.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import ray
from ray import serve as ray_serve

from batch.classify.crops import Crop, crops_of
from batch.classify.plan import CropPlan
from batch.classify.rows import classification_table
from batch.classify.spec import ClassifySpec
from batch.classify.target import Target
from batch.detect_stage import CALL_TIMEOUT_S, patiently, require_same_model
from batch.pipeline import WINDOW_CHUNKS, through
from batch.spec import CHUNK_BYTES
from model_store.store import ModelVersion
from serve.app_names import APP, deployment_of
from serve.chunks import Chunk, LogitsAnswer
from serve.priority import give_way_all

CHUNK = 16
"""Images of a task: of 12 megapixels some seconds of one thread, so that rows come as often as they are committed."""
CHUNK_CROPS = 64
"""Of one call to a replica, at most; and CHUNK_BYTES."""


class ClassifyStage:
    """A callable class for `map_batches`; built once per actor. `parts` as in `DetectStage`."""

    def __init__(
        self,
        spec: ClassifySpec,
        model: ModelVersion,
        target: Target,
        pool: str,
        parts: Sequence[ray.ObjectRef[pa.Table]],
    ) -> None:
        cv2.setNumThreads(1)
        give_way_all()
        self._spec, self._model, self._target, self._parts_of_plan = spec, model, target, parts
        self._node = ray.get_runtime_context().get_node_id()
        self._handle: Any = ray_serve.get_deployment_handle(deployment_of(pool), APP)

    def __call__(self, chunks: pa.Table) -> pa.Table:
        return pa.concat_tables([self._chunk(**chunk) for chunk in chunks.to_pylist()])

    def _chunk(self, part: int, first: int, rows: int) -> pa.Table:
        planned = ray.get(self._parts_of_plan[part]).slice(first, rows)
        crops = cut(planned, self._spec, self._model)
        return pa.concat_tables([self._classified(some) for some in in_chunks(crops)])

    def _classified(self, crops: Sequence[Crop]) -> pa.Table:
        inputs = [crop.input for crop in crops if crop.input is not None]
        started = time.perf_counter()
        name = str(self._model.id)
        answer = self._ask(Chunk.of_inputs(name, np.stack(inputs))) if inputs else None
        waited_ms = (time.perf_counter() - started) * 1e3
        run_id, info = self._spec.run_id, self._model.info
        return classification_table(
            run_id, info, self._target, crops, answer, waited_ms, self._node
        )

    @patiently
    def _ask(self, chunk: Chunk) -> LogitsAnswer:
        answer: LogitsAnswer = self._handle.classify_chunk.remote(chunk).result(
            timeout_s=CALL_TIMEOUT_S
        )
        require_same_model(self._model, answer.model)
        return answer


def cut(planned: pa.Table, spec: ClassifySpec, model: ModelVersion) -> Iterator[Crop]:
    """The crops of these images, one image decoded at a time."""
    preprocess, max_pixels = model.config.preprocess, spec.megapixels * 1_000_000
    for row in planned.to_pylist():
        yield from crops_of(row, preprocess, spec.margin_frac, max_pixels)


def in_chunks(crops: Iterator[Crop]) -> Iterator[list[Crop]]:
    """As many as go to a replica at once: an image may show hundreds."""
    some: list[Crop] = []
    size = 0
    for crop in crops:
        more = crop.input.nbytes if crop.input is not None else 0
        if some and (len(some) >= CHUNK_CROPS or size + more > CHUNK_BYTES):
            yield some
            some, size = [], 0
        some.append(crop)
        size += more
    if some:
        yield some


def classification_tables(spec: ClassifySpec, plan: CropPlan, pool: str) -> Iterator[pa.Table]:
    """Rows of `classifications` with EXTRA, in any order, as they come. Raises what a stage raises."""
    arguments = (spec, plan.model, plan.target, pool)
    for window in plan.windows(WINDOW_CHUNKS * CHUNK):
        yield from through(ClassifyStage, arguments, spec, window, CHUNK)
