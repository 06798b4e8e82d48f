"""Metadata of a model for /v2: inputs and outputs, Triton's model config, and the statistics of each version.

requests --Statistics.succeeded, .failed--> counters by version --Statistics.of--> $model_stat

Each part of a request is that of its slowest image, so that the parts add up to about its duration.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.config import Preprocess
from model_store.detector import LoadedDetector
from model_store.libraries import resight_version
from model_store.names import VersionId
from serve.api.v2.schemas import ModelMetadata, ServerMetadata, TensorMetadata
from serve.api.v2.tensors import IMAGE, TENSOR, datatype_of
from serve.inference.engine import Engine
from serve.models.resolver import ResolvedModel

EXTENSIONS = ["model_repository", "model_configuration", "binary_tensor_data", "statistics"]
PLATFORMS = {"onnx": "onnxruntime_onnx", "torch": "pytorch_export", "motion": "resight_motion"}
DETECTIONS = [
    TensorMetadata(name="num_detections", datatype="INT32", shape=[-1, 1]),
    TensorMetadata(name="boxes", datatype="FP32", shape=[-1, -1, 4]),
    TensorMetadata(name="scores", datatype="FP32", shape=[-1, -1]),
    TensorMetadata(name="class_ids", datatype="INT32", shape=[-1, -1]),
]


def server_metadata() -> ServerMetadata:
    return ServerMetadata(name="resight", version=resight_version(), extensions=EXTENSIONS)


class RawOutputs:
    """Raw outputs of networks, determined by running blank tensors through each version once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._outputs: dict[tuple[VersionId, str], list[TensorMetadata]] = {}

    async def of(self, detector: LoadedDetector) -> list[TensorMetadata]:
        """Return the outputs; lengths that depend on the size of the input are -1. Raises Overloaded."""
        key = detector.info.id, detector.info.inference_key
        if key not in self._outputs:
            runs: list[dict[str, NDArray[Any]]] = []
            for down, across in _sizes(detector.config.preprocess):
                blank = np.zeros((1, 3, down, across), np.float32)
                with self._engine.admission.images.place():
                    answer = await self._engine.infer_tensor(blank, ResolvedModel(detector, None))
                runs.append(dict(answer.outputs))
            self._outputs[key] = [
                TensorMetadata(
                    name=name,
                    datatype=datatype_of(name, values.dtype),
                    shape=[-1, *_lengths([run[name].shape[1:] for run in runs])],
                )
                for name, values in runs[0].items()
            ]
        return self._outputs[key]


def model_metadata(
    detector: LoadedDetector, versions: Sequence[VersionId], raw: Sequence[TensorMetadata]
) -> ModelMetadata:
    """Return the metadata; a raw output with the name of a detection output is answered, but not listed."""
    spec = detector.config.preprocess
    across, down = spec.input_px
    sides = [-1, -1] if spec.resize == "rect" else [down, across]
    reserved = {output.name for output in DETECTIONS}
    return ModelMetadata(
        name=detector.info.name,
        versions=[version.version for version in versions],
        platform=PLATFORMS[detector.config.runtime.kind],
        inputs=[
            TensorMetadata(name=IMAGE, datatype="BYTES", shape=[-1, 1]),
            TensorMetadata(name=TENSOR, datatype="FP32", shape=[-1, 3, *sides]),
        ],
        outputs=[*DETECTIONS, *(output for output in raw if output.name not in reserved)],
    )


def model_config(detector: LoadedDetector, metadata: ModelMetadata, max_images: int) -> dict[str, Any]:
    """Return Triton's ModelConfig as JSON; `parameters` holds everything that decides the rows, as text."""
    info = detector.info
    facts = {
        "version": info.version,
        "weights_sha256": info.weights_sha256,
        "inference_key": info.inference_key,
        "labels": json.dumps(info.labels),
        "config": detector.config.model_dump_json(),
    }
    return {
        "name": info.name,
        "platform": metadata.platform,
        "backend": detector.config.runtime.kind,
        "max_batch_size": max_images,
        "input": [{**_tensor(tensor), "optional": True} for tensor in metadata.inputs],
        "output": [_tensor(tensor) for tensor in metadata.outputs],
        "dynamic_batching": {
            "preferred_batch_size": [detector.batch.max],
            "max_queue_delay_microseconds": round(detector.batch.wait_ms * 1000),
        },
        "parameters": {key: {"string_value": text} for key, text in facts.items()},
    }


def _tensor(tensor: TensorMetadata) -> dict[str, Any]:
    """Return the config of a tensor without its batch dimension, which max_batch_size replaces."""
    datatype = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return {"name": tensor.name, "data_type": f"TYPE_{datatype}", "dims": tensor.shape[1:]}


def _sizes(spec: Preprocess) -> list[tuple[int, int]]:
    """Return (height, width) of the inputs to try; if the size is variable, also one of half the height."""
    across, down = spec.input_px
    if spec.resize != "rect" or down == spec.stride_px:
        return [(down, across)]
    return [(down, across), (down // spec.stride_px // 2 * spec.stride_px, across)]


def _lengths(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    return [lengths[0] if len(set(lengths)) == 1 and lengths[0] else -1 for lengths in zip(*shapes, strict=True)]


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """Nanoseconds of one request; `success` is the time from its body to its response."""

    success: int
    queue: int = 0
    compute_input: int = 0
    compute_infer: int = 0
    compute_output: int = 0


@dataclass(slots=True)
class Duration:
    """Count, and sum of durations in ns."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class _Counters:
    last_inference_ms: int = 0
    inferences: int = 0
    durations: dict[str, Duration] = field(default_factory=lambda: {name: Duration() for name in NAMES})


NAMES = ("fail", *(part.name for part in fields(RequestTimes)))


class Statistics:
    """Counters since the start of the replica; thread-safe."""

    def __init__(self) -> None:
        self._counters: dict[VersionId, _Counters] = {}
        self._lock = threading.Lock()

    def succeeded(self, version: VersionId, inferences: int, spent: RequestTimes) -> None:
        """Count an answered request; `inferences` is its number of images or tensor rows."""
        with self._lock:
            counters = self._counters.setdefault(version, _Counters())
            counters.inferences += inferences
            counters.last_inference_ms = time.time_ns() // 1_000_000
            for part in fields(RequestTimes):
                counters.durations[part.name].add(getattr(spent, part.name))

    def failed(self, version: VersionId, ns: int) -> None:
        """Count a failed request and its duration."""
        with self._lock:
            self._counters.setdefault(version, _Counters()).durations["fail"].add(ns)

    def of(self, version: VersionId) -> dict[str, Any]:
        """Return Triton's $model_stat; zeros for a version without requests."""
        with self._lock:
            counters = self._counters.get(version) or _Counters()
            stats = {name: {"count": d.count, "ns": d.ns} for name, d in counters.durations.items()}
            return {
                "name": version.name,
                "version": version.version,
                "last_inference": counters.last_inference_ms,
                "inference_count": counters.inferences,
                "execution_count": counters.durations["success"].count,
                "inference_stats": stats,
                "batch_stats": [],
            }
