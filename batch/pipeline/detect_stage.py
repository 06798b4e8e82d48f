"""Detect in the images of a chunk: file names in, rows of `results` out.

rows of a plan -> read, decode, prepare here -> uint8 chunk -> replica (bulk lane) -> one row for each image
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from archive.delta.result_columns import detection_columns
from archive.schemas import RESULTS
from batch.pipeline.isolation import ATTEMPTS, ProcessDied, isolated
from batch.pipeline.read_image import CRASHED_READER, MAX_DETAIL, ReadImage, prepare_image
from batch.pipeline.stage import ReplicaStage, StageProcess
from batch.runs.spec import CHUNK_BYTES, RunSpec
from model_store.detections import Detections
from model_store.store import ModelInfo, ModelVersion
from serve.inference.chunks import Chunk, ChunkAnswer


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


def result_table(run_id: str, model: ModelInfo, images: Sequence[ReadImage], answer: ChunkAnswer | None) -> pa.Table:
    """Return one row per image. `answer` covers exactly the images with `prepared`, in order; None if none has it."""
    lineage = {
        "inference_key": model.inference_key,
        "run_id": run_id,
        "model_name": model.name,
        "model_version": model.version,
        "weights_sha256": model.weights_sha256,
        "finished_at": datetime.now(UTC),
    }
    outcomes = _outcomes(answer)
    rows = [
        {**lineage, "media_sha256": image.media_sha256, "saturated": False, "detections": []}
        | {"n_detections": 0, "read_ms": image.read_ms, "decode_ms": image.decode_ms}
        | (_failed(image.error_code, image.error_detail or "") if image.error_code else {})
        | (_seen(image, *next(outcomes), model.labels) if image.prepared else {})
        for image in images
    ]
    return pa.Table.from_pylist(rows, schema=RESULTS)


def _outcomes(answer: ChunkAnswer | None) -> Iterator[tuple[Detections, Sequence[float], str | None]]:
    if answer is not None:
        yield from zip(answer.detections(), answer.timings_ms.tolist(), answer.errors, strict=True)


def _failed(code: str, detail: str) -> dict[str, Any]:
    return {"status": "failed", "error_code": code, "error_detail": detail[:MAX_DETAIL]}


def _seen(
    image: ReadImage, found: Detections, times_ms: Sequence[float], error: str | None, labels: tuple[str, ...]
) -> dict[str, Any]:
    assert image.facts is not None
    size = {"width_px": image.facts.width_px, "height_px": image.facts.height_px}
    if error is not None:
        code, _, detail = error.partition(": ")
        return size | _failed(code, detail)
    queue_ms, inference_ms, postprocess_ms = times_ms
    return (
        size
        | detection_columns(found, labels)
        | {
            "decode_note": image.facts.note,
            "queue_ms": queue_ms,
            "inference_ms": inference_ms,
            "postprocess_ms": postprocess_ms,
        }
    )
