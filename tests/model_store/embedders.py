"""Build a small embedder for tests, whose vector is a linear function of the mean colour of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from model_store.adding.add import add_version
from model_store.embedder import Embedder
from model_store.load import load_model
from model_store.names import VersionId, version_id
from model_store.store import ModelStore
from tests.fixtures_local import added_files, photo
from tests.graphs import mean_colours
from tests.model_store.classifiers import PLAIN, SIDE_PX

WEIGHT = np.array([[1, 0, 2, -1, 0.5], [0, 1, -2, 3, 0.25], [1, 1, 0, 1, -4]], np.float32)
"""(3 channels, 5 numbers): the vector of an image is its mean colour, as network input, times this matrix."""
LOOKS = version_id("looks", "1")


def looks(weight: np.ndarray = WEIGHT, **more: Any) -> bytes:
    return mean_colours(weight, SIDE_PX, output="embedding", **more)


def look_store(place: Path, *versions: str) -> ModelStore:
    """Return a store with versions of the embedder `looks`."""
    store = ModelStore(str(place))
    for version in versions or ("1",):
        store.publish(version_id("looks", version), added_files(looks(), PLAIN))
    return store


def loaded(place: Path, weights: bytes, version: VersionId = LOOKS, **overrides: Any) -> Embedder:
    store = ModelStore(str(place))
    add_version(store, version, weights, PLAIN | overrides, {"probe/cat.jpg": photo("cat")})
    model = load_model(store, version)
    assert isinstance(model, Embedder)
    return model
