"""Add a version: recognise, load, record its golden probe and reproduce it, publish with READY last.

weights file (or none, for runtime motion) + config overrides + probe images -> ModelVersion
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from model_store.config import ModelConfig, MotionRuntime, parse_config
from model_store.detector import LoadedDetector
from model_store.errors import ModelExists, ModelRefused
from model_store.inference_key import inference_key, sha256_hex, weights_digest
from model_store.names import VersionId
from model_store.probe import first_difference, record_probe
from model_store.recognise import recognise
from model_store.runtimes import open_session, open_weights
from model_store.store import CONFIG, READY, ModelInfo, ModelStore, ModelVersion
from model_store.weights_file import ZIP_MAGIC


def add_version(
    store: ModelStore,
    version: VersionId,
    weights: bytes | None,
    overrides: dict[str, Any],
    extra_files: Mapping[str, bytes],
) -> ModelVersion:
    """`extra_files`: README.md, LICENCE and probe/<image>; without a probe image a synthetic one is used.

    Raises ModelExists, ModelRefused.
    """
    if store.folder.exists(f"{version.name}/{version.version}/{READY}"):
        raise ModelExists(f"{version} exists in {store.url}; versions never change, name another")
    if weights is None:
        config = parse_config(json.dumps(overrides), f"config of {version}")
    else:
        runtime = "torch" if weights.startswith(ZIP_MAGIC) else "onnx"
        config = recognise(runtime, open_weights(runtime, weights, threads=1), overrides)
    files = _files(config, weights, extra_files)
    digests = {name: sha256_hex(data) for name, data in files.items()}
    digest = weights_digest(config, digests)
    info = ModelInfo(
        version.name, version.version, digest, inference_key(config, digest), config.labels
    )
    detector = LoadedDetector(info, config, open_session(config, files, threads=1), config.batch)
    probes = {
        name.removeprefix("probe/"): data
        for name, data in extra_files.items()
        if name.startswith("probe/") and not name.endswith(".json")
    }
    files.update(record_probe(detector, probes or {"synthetic.png": synthetic_scene()}))
    _require_steady(detector, files)
    return store.publish(version, files)


def _require_steady(detector: LoadedDetector, files: Mapping[str, bytes]) -> None:
    """Raises ModelRefused for what would never load again: a version cannot be mended."""
    difference = first_difference(detector, files)
    if difference:
        raise ModelRefused(
            f"{detector.info.id} sees a picture differently the second time, {difference}: something in "
            "the graph is random or kept from call to call; export it for inference"
        )


def _files(
    config: ModelConfig, weights: bytes | None, extra: Mapping[str, bytes]
) -> dict[str, bytes]:
    files = dict(extra)
    files[CONFIG] = json.dumps(
        config.model_dump(mode="json"), indent=1, ensure_ascii=False
    ).encode()
    if weights is not None and not isinstance(config.runtime, MotionRuntime):
        files[config.runtime.weights] = weights
    files.setdefault("README.md", b"Added with 'resight models add'.\n")
    return files


def synthetic_scene() -> bytes:
    """A PNG (480, 640) with shapes on noise: better than no probe, worse than a real photograph."""
    scene = np.random.default_rng(0).integers(90, 140, (480, 640, 3), dtype=np.uint8)
    cv2.ellipse(scene, (220, 260), (120, 70), 15, 0, 360, (60, 90, 150), -1)
    cv2.circle(scene, (330, 190), 45, (70, 100, 165), -1)
    cv2.rectangle(scene, (430, 300), (600, 420), (210, 205, 190), -1)
    return cv2.imencode(".png", scene)[1].tobytes()
