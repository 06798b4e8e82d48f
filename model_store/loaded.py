"""A version from the store to a model in memory, of either kind: verified, opened, its golden probe reproduced.

ModelStore, VersionId --load_model--> LoadedDetector | Classifier
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from model_store.batch_size import measured_batch
from model_store.classifier import Classifier
from model_store.config import AnyConfig, ClassifierConfig
from model_store.detector import LoadedDetector
from model_store.errors import BadRequest, DigestMismatch
from model_store.libraries import require_single_builds
from model_store.names import VersionId
from model_store.preprocess import to_tensor
from model_store.probe import check_probe
from model_store.runtimes import open_session
from model_store.store import ModelInfo, ModelStore

Loaded = LoadedDetector | Classifier
M = TypeVar("M", bound=LoadedDetector | Classifier)


def load_model(store: ModelStore, version: VersionId, threads: int = 1, digest: str = "") -> Loaded:
    """Verify every file, load, and reproduce the golden probe; only then is it ready. `digest` is the one that
    its files must have (`ModelVersion.digest`), if it is given.

    Raises ModelNotFound, ModelRefused, DigestMismatch, ProbeFailed.
    """
    require_single_builds()
    described = store.describe(version)
    if digest and described.digest != digest:
        raise DigestMismatch(f"the files of {version} were replaced a moment ago; ask again")
    files = store.read_files(described)
    model = opened(described.info, described.config, files, threads)
    check_probe(model, files)
    return model


def opened(
    info: ModelInfo, config: AnyConfig, files: Mapping[str, bytes], threads: int = 1
) -> Loaded:
    """Without its probe. Raises ModelRefused."""
    session = open_session(config, files, threads)
    if isinstance(config, ClassifierConfig):
        return Classifier(info, config, session, config.batch)
    return LoadedDetector(info, config, session, config.batch)


def load_detector(store: ModelStore, version: VersionId, threads: int = 1) -> LoadedDetector:
    """Raises as `load_model`, and BadRequest for a classifier, before it is loaded."""
    store.describe(version).detector_config  # noqa: B018  the refusal is what it is read for
    model = load_model(store, version, threads)
    assert isinstance(model, LoadedDetector)
    return model


def load_classifier(store: ModelStore, version: VersionId, threads: int = 1) -> Classifier:
    """Raises as `load_model`, and BadRequest for a detector, before it is loaded."""
    store.describe(version).classifier_config  # noqa: B018
    model = load_model(store, version, threads)
    assert isinstance(model, Classifier)
    return model


def require_detector(model: Loaded) -> LoadedDetector:
    """Raises BadRequest that names the kind and the way out."""
    if isinstance(model, Classifier):
        raise BadRequest(
            f"{model.info.id} is a classifier: ask POST /v1/classify, or name a detector"
        )
    return model


def require_classifier(model: Loaded) -> Classifier:
    """Likewise."""
    if not isinstance(model, Classifier):
        raise BadRequest(
            f"{model.info.id} is a detector: ask POST /v1/detect, or name a classifier"
        )
    return model


def with_measured_batch(model: M) -> M:
    """The same model with `batch.max` brought down to what pays on this device."""
    spec, batch = model.config.preprocess, model.config.batch
    across, down = spec.input_px
    blank = np.zeros((batch.max, down, across, 3), np.uint8)

    def run(size: int) -> object:
        return model.session.run(to_tensor(blank[:size], spec))

    return replace(model, batch=batch.model_copy(update={"max": measured_batch(run, batch.max)}))
