"""Detect in the images of a chunk: file names in, rows of `results` out.

rows of a plan -> read, decode, prepare here -> uint8 chunk -> replica (bulk lane) -> result rows
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from batch.pipeline.isolation import ATTEMPTS, ProcessDied, isolated
from batch.pipeline.read_image import CRASHED_READER, ReadImage, prepare_image
from batch.pipeline.result_rows import result_table
from batch.pipeline.stage import ReplicaStage, StageProcess
from batch.runs.spec import CHUNK_BYTES, RunSpec
from model_store.store import ModelVersion
from serve.inference.chunks import Chunk


class DetectStage(ReplicaStage):
    """The stage of a detection run. `read` makes a ReadImage of a row.

    In a careful process it runs in child processes, so that a second attempt at a chunk finds the image that kills its
    reader and makes a failed row of that image only.
    """

    read = staticmethod(prepare_image)

    def __init__(self, process: StageProcess, spec: RunSpec, model: ModelVersion) -> None:
        super().__init__(process, model)
        self._spec = spec
        self._read = isolated(self.read) if process.careful else self.read

    def rows(self, planned: pa.Table) -> pa.Table:
        groups = self._groups(planned.to_pylist())
        results = pa.concat_tables([self._detect(images) for images in groups])
        nodes = pa.array([self._process.node] * len(results), pa.string())
        replaces = planned["replaces"].combine_chunks()
        return results.append_column("replaces", replaces).append_column("node", nodes)

    def _groups(self, rows: Sequence[dict[str, Any]]) -> Iterator[list[ReadImage]]:
        """Read and prepare images; yield them in groups for one request each: tiled ones can be large."""
        max_pixels = self._spec.megapixels * 1_000_000
        group: list[ReadImage] = []
        size = 0
        for row in rows:
            image = self._image(row, max_pixels)
            image_bytes = image.prepared.pixels.nbytes if image.prepared else 0
            if group and size + image_bytes > CHUNK_BYTES:
                yield group
                group, size = [], 0
            group.append(image)
            size += image_bytes
        if group:
            yield group

    def _image(self, row: dict[str, Any], max_pixels: int) -> ReadImage:
        try:
            return self._read(row, self._model.config.preprocess, max_pixels)
        except ProcessDied as died:
            why = f"reading this image killed its process ({died}) in each of {ATTEMPTS} attempts"
            return ReadImage(row["media_sha256"], error_code=CRASHED_READER, error_detail=why)

    def _detect(self, images: Sequence[ReadImage]) -> pa.Table:
        readable = [image.prepared for image in images if image.prepared]
        started = time.perf_counter()
        name = str(self._model.id)
        answer = self.request("detect_chunk", Chunk.of(name, readable)) if readable else None
        waited_ms = (time.perf_counter() - started) * 1e3 / len(images)
        rows = result_table(self._spec.run_id, self._model.info, images, answer)
        return rows.append_column("waited_ms", pa.array([waited_ms] * len(images), pa.float32()))
