"""Load a version from the store into memory: verify its files, open the session, reproduce the golden probe.

ModelStore, VersionId --load_model--> LoadedDetector | CropModel --with_measured_batch--> the same, with the number of
images that a session call should take on this device.

On a CPU one image per call is often fastest (an SSDLite here: 24.1 ms alone, 26.4 ms each in batches of eight); on a
GPU it rarely is. So the size is doubled for as long as that pays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model_store.classifier import Classifier
from model_store.config import AnyConfig, ClassifierConfig, EmbedderConfig
from model_store.crop_model import CropModel
from model_store.detector import LoadedDetector
from model_store.embedder import Embedder
from model_store.errors import BadRequest, DigestMismatch
from model_store.libraries import require_single_builds
from model_store.names import VersionId
from model_store.probe import check_probe
from model_store.runtimes import open_session
from model_store.store import ModelInfo, ModelStore, in_words
from model_store.transform.preprocess import to_tensor

Loaded = LoadedDetector | CropModel
M = TypeVar("M", bound=Loaded)
ROUNDS = 3
WORTH = 0.95
"""Largest share of the time per image that a batch of twice the size may take: in a larger batch, the first image
also waits for the last."""


def load_model(store: ModelStore, version: VersionId, threads: int = 1, digest: str = "") -> Loaded:
    """Verify every file, load the model, and reproduce the golden probe. `digest` is the required digest of its files
    (`ModelVersion.digest`), if given.

    Raises ModelNotFound, ModelRefused, DigestMismatch, ProbeFailed.
    """
    require_single_builds()
    described = store.describe(version)
    if digest and described.digest != digest:
        raise DigestMismatch(f"the files of {version} were replaced a moment ago; try again")
    files = store.read_files(described)
    model = opened(described.info, described.config, files, threads)
    check_probe(model, files)
    return model


def opened(info: ModelInfo, config: AnyConfig, files: Mapping[str, bytes], threads: int = 1) -> Loaded:
    """Open a model from its files, without a check of its probe. Raises ModelRefused."""
    session = open_session(config, files, threads)
    if isinstance(config, ClassifierConfig):
        return Classifier(info, config, session, config.batch)
    if isinstance(config, EmbedderConfig):
        return Embedder(info, config, session, config.batch)
    return LoadedDetector(info, config, session, config.batch)


def load_detector(store: ModelStore, version: VersionId, threads: int = 1) -> LoadedDetector:
    """Load a detector. Raises like `load_model`, and BadRequest for another kind, before it is loaded."""
    store.describe(version).detector_config  # noqa: B018  read only for its BadRequest
    model = load_model(store, version, threads)
    assert isinstance(model, LoadedDetector)
    return model


def require(kind: type[M], model: Loaded) -> M:
    """Return the model if it is of this kind. Raises BadRequest."""
    if not isinstance(model, kind):
        route = {"detector": "/v1/detect", "classifier": "/v1/classify", "embedder": "/v1/embed"}[model.config.kind]
        kinds: dict[type, str] = {LoadedDetector: "a detector", Classifier: "a classifier", Embedder: "an embedder"}
        needed = kinds.get(kind, "a classifier or an embedder")
        raise BadRequest(f"{model.info.id} is {in_words(model.config)}: use POST {route}, or choose {needed}")
    return model


def run_rows(model: Loaded, rows: Sequence[NDArray[np.float32]]) -> list[dict[str, NDArray[np.float32]]]:
    """Return the raw outputs of each tensor (3, h, w), in the format of `to_tensor`."""
    results: list[dict[str, NDArray[np.float32]]] = [{} for _ in rows]
    for shape in {row.shape for row in rows}:
        alike = [i for i, row in enumerate(rows) if row.shape == shape]
        outputs = model.session.run(np.stack([rows[i] for i in alike]))
        for place, i in enumerate(alike):
            results[i] = {name: values[place] for name, values in outputs.items()}
    return results


def warm_up(model: Loaded) -> None:
    """Run a batch of blank images, so that memory is allocated and kernels are chosen."""
    across, down = model.config.preprocess.input_px
    pixels = np.zeros((1, down, across, 3), np.uint8)
    size = min(model.batch.max, 8)
    model.session.run(to_tensor(np.repeat(pixels, size, 0), model.config.preprocess))


def with_measured_batch(model: M) -> M:
    """Return the model with `batch.max` reduced to the size that pays on this device."""
    spec, batch = model.config.preprocess, model.config.batch
    across, down = spec.input_px
    blank = np.zeros((batch.max, down, across, 3), np.uint8)

    def run(size: int) -> object:
        return model.session.run(to_tensor(blank[:size], spec))

    return replace(model, batch=batch.model_copy(update={"max": measured_batch(run, batch.max)}))


def measured_batch(run: Callable[[int], object], most: int) -> int:
    """Return the batch size, at most `most`, from which doubling no longer pays; `run(size)` runs one batch."""
    size, seconds = 1, _seconds_per_image(run, 1)
    while size < most:
        larger = min(2 * size, most)
        candidate = _seconds_per_image(run, larger)
        if candidate > WORTH * seconds:
            return size
        size, seconds = larger, candidate
    return size


def _seconds_per_image(run: Callable[[int], object], size: int) -> float:
    """Return the best of a few calls, since other work of the machine only slows a call down; one call warms up."""
    best = float("inf")
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        run(size)
        best = min(best, time.perf_counter() - started)
    return best / size
