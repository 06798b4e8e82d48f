"""Classify crops: rows of a plan in, rows of `classifications` out.

row of an image -> read, decode once -> its crops, prepared -> uint8 chunks -> replica (bulk lane) -> rows
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from batch.classify.crops import Crop, crops_of
from batch.classify.rows import Target, classification_table
from batch.classify.spec import ClassifySpec
from batch.pipeline.stage import ReplicaStage, StageProcess
from batch.runs.spec import CHUNK_BYTES
from model_store.store import ModelVersion
from serve.inference.chunks import Chunk

CHUNK_CROPS = 64
"""Maximum crops in one call to a replica, in addition to CHUNK_BYTES."""


class ClassifyStage(ReplicaStage):
    """The stage of a classify run."""

    def __init__(self, process: StageProcess, spec: ClassifySpec, model: ModelVersion, target: Target) -> None:
        super().__init__(process, model)
        self._spec, self._target = spec, target

    def rows(self, planned: pa.Table) -> pa.Table:
        crops = cut(planned, self._spec, self._model)
        return pa.concat_tables([self._classified(chunk) for chunk in in_chunks(crops)])

    def _classified(self, crops: Sequence[Crop]) -> pa.Table:
        inputs = [crop.input for crop in crops if crop.input is not None]
        started = time.perf_counter()
        name = str(self._model.id)
        answer = self.request("classify_chunk", Chunk.of_inputs(name, np.stack(inputs))) if inputs else None
        waited_ms = (time.perf_counter() - started) * 1e3
        run_id, info = self._spec.run_id, self._model.info
        return classification_table(run_id, info, self._target, crops, answer, waited_ms, self._process.node)


def cut(planned: pa.Table, spec: ClassifySpec, model: ModelVersion) -> Iterator[Crop]:
    """Yield the crops of these images; one image is decoded at a time."""
    preprocess, max_pixels = model.config.preprocess, spec.megapixels * 1_000_000
    for row in planned.to_pylist():
        yield from crops_of(row, preprocess, spec.margin_frac, max_pixels)


def in_chunks(crops: Iterator[Crop]) -> Iterator[list[Crop]]:
    """Split crops into chunks for one call to a replica each; an image can have hundreds."""
    chunk: list[Crop] = []
    size_bytes = 0
    for crop in crops:
        crop_bytes = crop.input.nbytes if crop.input is not None else 0
        if chunk and (len(chunk) >= CHUNK_CROPS or size_bytes + crop_bytes > CHUNK_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(crop)
        size_bytes += crop_bytes
    if chunk:
        yield chunk
