"""Add a version: recognise and load the weights, record and reproduce a golden probe, publish with READY last.

weights file (or none, for runtime motion) + config overrides + probe images -> ModelVersion

Another CPU, GPU or number of threads rounds differently. This changes the order of equal scores, and so the boxes
that suppression keeps. To find these detections, the model runs on each probe image again with noise of that size
(`mark_ties`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model_store.adding.recognise import Recognised, recognise
from model_store.config import AnyConfig, MotionRuntime, OnnxRuntime, TorchRuntime, parse_config
from model_store.crop_model import CropModel
from model_store.crop_probe import require_distinct
from model_store.detector import LoadedDetector
from model_store.errors import ModelError, ModelExists, ModelRefused
from model_store.inference_key import inference_key, sha256_hex, weights_digest
from model_store.load import opened
from model_store.names import VersionId, next_version, number_of
from model_store.probe import (
    EXPECTED,
    ExpectedProbe,
    ProbeDetection,
    Tolerance,
    first_difference,
    match,
    record_probe,
    recorded_detections,
)
from model_store.ready import READY
from model_store.runtimes import Session
from model_store.runtimes.weights_file import ZIP_MAGIC
from model_store.store import CONFIG, ModelInfo, ModelStore, ModelVersion

NOISE = 1e-4
"""Largest relative change of an input value: float32 results of two machines differ by about this."""
DRAWS = 4


def recognised(weights: bytes | None, overrides: dict[str, Any]) -> Recognised:
    """Return the config that these weights are added with, and the reasons. Raises ModelRefused."""
    if weights is None:
        return Recognised(parse_config(json.dumps(overrides), "config of the new version"))
    return recognise("torch" if weights.startswith(ZIP_MAGIC) else "onnx", weights, overrides)


def already_there(store: ModelStore, name: str, config: AnyConfig, weights: bytes | None) -> ModelVersion | None:
    """Return a READY version with these weights and this config, the highest whole number first, or None."""
    runtime = config.runtime
    given = {runtime.weights: weights} if isinstance(runtime, OnnxRuntime | TorchRuntime) else {}
    digests = {file: sha256_hex(data) for file, data in given.items() if data is not None}
    digest = weights_digest(config, digests)
    for version in sorted(store.versions(name), key=number_of, reverse=True):
        try:
            described = store.describe(version)
        except ModelError:  # a damaged version does not count
            continue
        if (described.info.weights_sha256, described.config) == (digest, config):
            return described
    return None


def add_version(
    store: ModelStore,
    version: VersionId,
    weights: bytes | None,
    overrides: dict[str, Any],
    extra_files: Mapping[str, bytes],
    known: Recognised | None = None,
) -> ModelVersion:
    """Add exactly this version, otherwise like `add_next_version`. Raises ModelExists, ModelRefused."""
    if store.folder.exists(f"{version.name}/{version.version}/{READY}"):
        raise ModelExists(f"{version} exists in {store.url} and versions never change; choose another version")
    known = known or recognised(weights, overrides)
    return store.publish(version, _with_probe(version, weights, extra_files, known))


def add_next_version(
    store: ModelStore, name: str, weights: bytes | None, extra_files: Mapping[str, bytes], known: Recognised
) -> ModelVersion:
    """Add the next whole number of a model, with the config that `recognised` returned for these weights.

    `extra_files` are README.md, LICENSE and probe/<image>. Without a probe image a synthetic one is used.
    Raises ModelRefused.
    """
    expected = next_version(name, store.folder.names(name))
    return store.publish_next(name, _with_probe(expected, weights, extra_files, known))


def _with_probe(
    version: VersionId, weights: bytes | None, extra_files: Mapping[str, bytes], known: Recognised
) -> dict[str, bytes]:
    """Return the files of a new version, including its probe. `version` only appears in errors.

    Raises ModelRefused.
    """
    config = known.config
    files = _files(known, weights, extra_files)
    digests = {name: sha256_hex(data) for name, data in files.items()}
    digest = weights_digest(config, digests)
    info = ModelInfo(version.name, version.version, digest, inference_key(config, digest), config.labels)
    model = opened(info, config, files)
    probes = {
        name.removeprefix("probe/"): data
        for name, data in extra_files.items()
        if name.startswith("probe/") and not name.endswith(".json")
    }
    files.update(record_probe(model, probes or {"synthetic.png": synthetic_scene()}))
    difference = first_difference(model, files)
    if difference:  # the version could never be loaded
        raise ModelRefused(
            f"{model.info.id} gives different results for the same image, {difference}: the graph is "
            "random or keeps state between calls; export it for inference"
        )
    return files | mark_ties(model, files)


def _files(known: Recognised, weights: bytes | None, extra: Mapping[str, bytes]) -> dict[str, bytes]:
    files, config = dict(extra), known.config
    files[CONFIG] = json.dumps(config.model_dump(mode="json"), indent=1, ensure_ascii=False).encode()
    if weights is not None and isinstance(config.runtime, OnnxRuntime | TorchRuntime):
        files[config.runtime.weights] = weights
    files.setdefault("README.md", _readme(known))
    return files


def _readme(known: Recognised) -> bytes:
    """Describe what was recognised, for later readers of the version's folder."""
    lines = "".join(f"- {what}: {found} ({why})\n" for what, found, why in known.reasons)
    return f"Added with 'resight models add'.\n{lines and chr(10)}{lines}".encode()


@functools.cache
def synthetic_scene() -> bytes:
    """Return a PNG (480, 640) with shapes on noise: better than no probe, worse than a real photograph."""
    scene = np.random.default_rng(0).integers(90, 140, (480, 640, 3), dtype=np.uint8)
    cv2.ellipse(scene, (220, 260), (120, 70), 15, 0, 360, (60, 90, 150), -1)
    cv2.circle(scene, (330, 190), 45, (70, 100, 165), -1)
    cv2.rectangle(scene, (430, 300), (600, 420), (210, 205, 190), -1)
    return cv2.imencode(".png", scene)[1].tobytes()


def mark_ties(model: LoadedDetector | CropModel, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the changed files of a newly recorded probe.

    Raises ModelRefused for a probe that cannot distinguish this model from another: it has detections, but each of
    them may be missing; or as `require_distinct`.
    """
    if isinstance(model, CropModel):
        require_distinct(model, files[EXPECTED], files)
        return {}
    expected = ExpectedProbe.model_validate_json(files[EXPECTED])
    if isinstance(model.config.runtime, MotionRuntime):  # integers: no rounding
        return {}
    images = {
        name: _marked(model, wanted, files[f"probe/{name}"], expected.tolerance)
        for name, wanted in expected.images.items()
    }
    expected = expected.model_copy(update={"images": images})
    floor = model.config.score_floor
    total, binding, near = 0, 0, expected.tolerance.score
    for name, rows in images.items():
        cut = expected.cut(name, floor)
        total += sum(row.score > floor + near for row in rows)
        binding += sum(row.score > cut + near and not row.tied for row in rows)
    if total and not binding:
        raise ModelRefused(
            f"the probe cannot distinguish {model.info.id} from another model: its {total} detections have equal "
            "scores, so that any of them may be missing elsewhere. Choose another image with --probe; if this happens "
            "with every image, the weights are untrained"
        )
    return {EXPECTED: expected.to_json()}


class NoisySession:
    """A session with slightly larger input, never smaller, so that integer inputs do not change."""

    def __init__(self, session: Session) -> None:
        self.device = session.device
        self.fixed_rows: frozenset[str] = getattr(session, "fixed_rows", frozenset())
        self._session = session
        self._random = np.random.default_rng(0)

    def run(self, tensor: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        noise = self._random.uniform(0, NOISE, tensor.shape).astype(np.float32)
        return self._session.run(tensor * (1 + noise))


def _marked(
    model: LoadedDetector, wanted: list[ProbeDetection], data: bytes, tolerance: Tolerance
) -> list[ProbeDetection]:
    """Return the detections of one image, `tied` if a draw of noise replaces them."""
    noisy = replace(model, session=NoisySession(model.session))
    draws = [recorded_detections(noisy, data)[0] for _ in range(DRAWS)]
    tied = {place for found in draws for place in match(wanted, found, tolerance)[0]}
    return [row.model_copy(update={"tied": True}) if place in tied else row for place, row in enumerate(wanted)]
