"""Run a model of crops: rows of a plan in, rows of its table out.

row of an image -> read, check the digest, decode once -> its crops, prepared: Crop(input) or Crop(error code)
-> uint8 chunks -> replica (bulk lane) -> rows
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from batch.crops.model_rows import Crop, Target
from batch.pipeline.read_image import MAX_DETAIL, boxed_pixels, image_bytes
from batch.pipeline.stage import ReplicaStage, StageProcess
from batch.runs.spec import CHUNK_BYTES, CropsSpec
from model_store.config import Preprocess
from model_store.errors import ImageError
from model_store.images.crops import Box
from model_store.store import ModelVersion
from model_store.transform.preprocess import prepare_crop
from serve.inference.chunks import Chunk

CHUNK_CROPS = 64
"""Maximum crops in one call to a replica, in addition to CHUNK_BYTES."""
Row = Mapping[str, Any]


class CropModelStage(ReplicaStage):
    """`table_of` makes the rows of a chunk: `classification_table` or `embedding_table`."""

    def __init__(
        self,
        process: StageProcess,
        spec: CropsSpec,
        model: ModelVersion,
        target: Target,
        table_of: Callable[..., pa.Table],
    ) -> None:
        super().__init__(process, model)
        self._spec, self._target, self._table_of = spec, target, table_of

    def rows(self, planned: pa.Table) -> pa.Table:
        crops = cut(planned, self._spec, self._model)
        return pa.concat_tables([self._inferred(chunk) for chunk in in_chunks(crops)])

    def _inferred(self, crops: Sequence[Crop]) -> pa.Table:
        inputs = [crop.input for crop in crops if crop.input is not None]
        started = time.perf_counter()
        name = str(self._model.id)
        answer = self.request("crops_chunk", Chunk.of_inputs(name, np.stack(inputs))) if inputs else None
        waited_ms = (time.perf_counter() - started) * 1e3
        run_id, info = self._spec.run_id, self._model.info
        return self._table_of(run_id, info, self._target, crops, answer, waited_ms, self._process.node)


def cut(planned: pa.Table, spec: CropsSpec, model: ModelVersion) -> Iterator[Crop]:
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


def crops_of(row: Row, spec: Preprocess, margin_frac: float, max_pixels: int) -> list[Crop]:
    """Return a crop for each box of the row, in order. An invalid image gives crops with an error code.

    Raises StorageUnreachable if the archive is unavailable; this and unknown errors stop the run.
    """
    started = time.perf_counter()
    data = image_bytes(row)
    read_ms = (time.perf_counter() - started) * 1e3
    started = time.perf_counter()
    try:
        pixels = boxed_pixels(row, data, max_pixels, spec.damaged == "tolerate")
    except ImageError as error:
        return _failed(row, error.code, str(error), read_ms)
    cut = [prepare_crop(pixels, _sides(box), spec, margin_frac) for box in row["boxes"]]
    decode_ms = (time.perf_counter() - started) * 1e3
    crops = [
        Crop(row["media_sha256"], box["rank"], box["replaces"], prepared.pixels[0], corners)
        for box, (corners, prepared) in zip(row["boxes"], cut, strict=True)
    ]
    return _timed(crops, read_ms, decode_ms)


def _sides(box: Row) -> Box:
    return box["x1_px"], box["y1_px"], box["x2_px"], box["y2_px"]


def _failed(row: Row, code: str, detail: str, read_ms: float) -> list[Crop]:
    crops = [
        Crop(row["media_sha256"], box["rank"], box["replaces"], error_code=code, error_detail=detail[:MAX_DETAIL])
        for box in row["boxes"]
    ]
    return _timed(crops, read_ms)


def _timed(crops: list[Crop], read_ms: float, decode_ms: float = 0.0) -> list[Crop]:
    """Give the first crop the times of its image."""
    return [replace(crops[0], read_ms=read_ms, decode_ms=decode_ms), *crops[1:]] if crops else []
