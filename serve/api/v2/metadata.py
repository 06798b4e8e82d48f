"""Metadata of a model for /v2: inputs and outputs, Triton's model config, and the statistics of each version."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.classifier import Classifier
from model_store.embedder import Embedder
from model_store.load import Loaded
from model_store.names import VersionId
from serve.api.v2.schemas import ModelMetadata, TensorMetadata
from serve.api.v2.tensors import IMAGE, TENSOR, datatype_of
from serve.inference.engine import Engine
from serve.models.resolver import ResolvedModel

PLATFORMS = {"onnx": "onnxruntime_onnx", "torch": "pytorch_export", "motion": "resight_motion"}
DETECTIONS = [
    TensorMetadata(name="num_detections", datatype="INT32", shape=[-1, 1]),
    TensorMetadata(name="boxes", datatype="FP32", shape=[-1, -1, 4]),
    TensorMetadata(name="scores", datatype="FP32", shape=[-1, -1]),
    TensorMetadata(name="class_ids", datatype="INT32", shape=[-1, -1]),
]


class RawOutputs:
    """Raw outputs of networks, determined by running blank tensors through each version once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._outputs: dict[tuple[VersionId, str], list[TensorMetadata]] = {}

    async def of(self, model: Loaded) -> list[TensorMetadata]:
        """Return the outputs; lengths that depend on the size of the input are -1. Raises Overloaded."""
        key = model.info.id, model.info.inference_key
        if key not in self._outputs:
            spec = model.config.preprocess
            across, down = spec.input_px
            heights = [down]
            if spec.resize == "rect" and down != spec.stride_px:
                heights.append(down // spec.stride_px // 2 * spec.stride_px)
            runs: list[Mapping[str, NDArray[Any]]] = []
            for height in heights:
                blank = np.zeros((1, 3, height, across), np.float32)
                with self._engine.admission.images.place():
                    runs.append((await self._engine.infer_tensor(blank, ResolvedModel(model, None))).outputs)
            self._outputs[key] = [
                TensorMetadata(
                    name=name,
                    datatype=datatype_of(name, values.dtype),
                    shape=[-1, *_lengths([run[name].shape[1:] for run in runs])],
                )
                for name, values in runs[0].items()
            ]
        return self._outputs[key]


def image_outputs(model: Loaded) -> list[TensorMetadata]:
    """Return the outputs of encoded images."""
    if isinstance(model, Embedder):
        return [TensorMetadata(name="vector", datatype="FP32", shape=[-1, model.width])]
    if isinstance(model, Classifier):
        return [TensorMetadata(name=name, datatype="FP32", shape=[-1, model.width]) for name in ("scores", "logits")]
    return DETECTIONS


def model_metadata(model: Loaded, versions: Sequence[VersionId], raw: Sequence[TensorMetadata]) -> ModelMetadata:
    """Return the metadata; a raw output with the name of an output of images is answered, but not listed."""
    spec, of_images = model.config.preprocess, image_outputs(model)
    across, down = spec.input_px
    sides = [-1, -1] if spec.resize == "rect" else [down, across]
    reserved = {output.name for output in of_images}
    return ModelMetadata(
        name=model.info.name,
        versions=[version.version for version in versions],
        platform=PLATFORMS[model.config.runtime.kind],
        inputs=[
            TensorMetadata(name=IMAGE, datatype="BYTES", shape=[-1, 1]),
            TensorMetadata(name=TENSOR, datatype="FP32", shape=[-1, 3, *sides]),
        ],
        outputs=[*of_images, *(output for output in raw if output.name not in reserved)],
    )


def model_config(model: Loaded, metadata: ModelMetadata, max_images: int) -> dict[str, Any]:
    """Return Triton's ModelConfig as JSON; `parameters` holds everything that decides the rows, as text."""
    info = model.info
    facts = {
        "version": info.version,
        "weights_sha256": info.weights_sha256,
        "inference_key": info.inference_key,
        "labels": json.dumps(info.labels),
        "config": model.config.model_dump_json(),
    }
    return {
        "name": info.name,
        "platform": metadata.platform,
        "backend": model.config.runtime.kind,
        "max_batch_size": max_images,
        "input": [{**_tensor(tensor), "optional": True} for tensor in metadata.inputs],
        "output": [_tensor(tensor) for tensor in metadata.outputs],
        "dynamic_batching": {
            "preferred_batch_size": [model.batch.max],
            "max_queue_delay_microseconds": round(model.batch.wait_ms * 1000),
        },
        "parameters": {key: {"string_value": text} for key, text in facts.items()},
    }


def _tensor(tensor: TensorMetadata) -> dict[str, Any]:
    """Return the config of a tensor without its batch dimension, which max_batch_size replaces."""
    datatype = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return {"name": tensor.name, "data_type": f"TYPE_{datatype}", "dims": tensor.shape[1:]}


def _lengths(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    return [lengths[0] if len(set(lengths)) == 1 and lengths[0] else -1 for lengths in zip(*shapes, strict=True)]


PARTS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


class Statistics:
    """Counters of each version since the start of the replica, as Triton's $model_stat. Use it on one event loop."""

    def __init__(self) -> None:
        self._versions: dict[VersionId, dict[str, Any]] = {}

    def of(self, version: VersionId) -> dict[str, Any]:
        """Return the counters of a version, which are zero before its first request."""
        return self._versions.setdefault(
            version,
            {
                "name": version.name,
                "version": version.version,
                "last_inference": 0,
                "inference_count": 0,
                "execution_count": 0,
                "inference_stats": {part: {"count": 0, "ns": 0} for part in PARTS},
                "batch_stats": [],
            },
        )

    def count(self, version: VersionId, rows: int, **spent_ns: int) -> None:
        """Count a request by the ns of its parts; `rows` is its number of images or tensor rows, 0 if it failed.

        `success` and `fail` last from the body to the outputs; the other parts are those of the slowest image.
        """
        stats = self.of(version)
        for part, ns in spent_ns.items():
            stats["inference_stats"][part]["count"] += 1
            stats["inference_stats"][part]["ns"] += ns
        if rows:
            stats["last_inference"] = time.time_ns() // 1_000_000
            stats["inference_count"] += rows
            stats["execution_count"] += 1
