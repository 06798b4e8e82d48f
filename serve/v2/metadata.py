"""What /v2 says of a model before it is asked: its inputs and outputs, and Triton's model config."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.config import Preprocess
from model_store.detector import LoadedDetector
from model_store.libraries import resight_version
from model_store.names import VersionId
from serve.engine import Engine
from serve.residents import Resident
from serve.v2.contract import ModelMetadata, ServerMetadata, TensorMetadata
from serve.v2.tensors import IMAGE, TENSOR, datatype_of

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
    """The outputs of networks, seen by running blank tensors through each version once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen: dict[tuple[VersionId, str], list[TensorMetadata]] = {}

    async def of(self, detector: LoadedDetector) -> list[TensorMetadata]:
        """Lengths that the size of the input changes are -1. Raises Overloaded."""
        key = detector.info.id, detector.info.inference_key
        if key not in self._seen:
            found: list[dict[str, NDArray[Any]]] = []
            for down, across in _sizes(detector.config.preprocess):
                blank = np.zeros((1, 3, down, across), np.float32)
                with self._engine.slot():
                    answer = await self._engine.infer_tensor(blank, Resident(detector, None))
                found.append(dict(answer.outputs))
            self._seen[key] = [
                TensorMetadata(
                    name=name,
                    datatype=datatype_of(name, values.dtype),
                    shape=[-1, *_lengths([other[name].shape[1:] for other in found])],
                )
                for name, values in found[0].items()
            ]
        return self._seen[key]


def model_metadata(
    detector: LoadedDetector, versions: Sequence[VersionId], raw: Sequence[TensorMetadata]
) -> ModelMetadata:
    """A raw output that is called like one of the detections is answered, but not listed."""
    spec = detector.config.preprocess
    across, down = spec.input_px
    sides = [-1, -1] if spec.resize == "rect" else [down, across]
    taken = {output.name for output in DETECTIONS}
    return ModelMetadata(
        name=detector.info.name,
        versions=[one.version for one in versions],
        platform=PLATFORMS[detector.config.runtime.kind],
        inputs=[
            TensorMetadata(name=IMAGE, datatype="BYTES", shape=[-1, 1]),
            TensorMetadata(name=TENSOR, datatype="FP32", shape=[-1, 3, *sides]),
        ],
        outputs=[*DETECTIONS, *(output for output in raw if output.name not in taken)],
    )


def model_config(
    detector: LoadedDetector, metadata: ModelMetadata, most_images: int
) -> dict[str, Any]:
    """Triton's ModelConfig as JSON; what decides the rows is in `parameters`, as text."""
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
        "max_batch_size": most_images,
        "input": [{**_tensor(one), "optional": True} for one in metadata.inputs],
        "output": [_tensor(one) for one in metadata.outputs],
        "dynamic_batching": {
            "preferred_batch_size": [detector.batch.max],
            "max_queue_delay_microseconds": round(detector.batch.wait_ms * 1000),
        },
        "parameters": {key: {"string_value": text} for key, text in facts.items()},
    }


def _tensor(one: TensorMetadata) -> dict[str, Any]:
    """Without the batch dimension, which max_batch_size stands for."""
    datatype = "STRING" if one.datatype == "BYTES" else one.datatype
    return {"name": one.name, "data_type": f"TYPE_{datatype}", "dims": one.shape[1:]}


def _sizes(spec: Preprocess) -> list[tuple[int, int]]:
    """Height and width of the inputs to try: where both are free, a second of half the height."""
    across, down = spec.input_px
    if spec.resize != "rect" or down == spec.stride_px:
        return [(down, across)]
    return [(down, across), (down // spec.stride_px // 2 * spec.stride_px, across)]


def _lengths(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    return [
        lengths[0] if len(set(lengths)) == 1 and lengths[0] else -1
        for lengths in zip(*shapes, strict=True)
    ]
