"""Build a small classifier for tests, which classifies the colour of an image with certainty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from model_store.adding.add import add_version
from model_store.classifier import Classifier
from model_store.load import load_model
from model_store.names import VersionId, version_id
from model_store.store import ModelStore
from tests.fixtures_local import added_files, photo
from tests.graphs import mean_colours

LABELS = ("red", "green", "blue", "grey")
NAMES = {"names": str(dict(enumerate(LABELS))), "task": "classify"}
WEIGHT = np.array([[9, -4, -4, 1], [-4, 9, -4, 1], [-4, -4, 9, 1]], np.float32)
"""(3 channels, 4 labels): the logits of an image are its mean colour, as network input, times this matrix."""
SIDE_PX = 16
PLAIN: dict[str, Any] = {"preprocess": {"divide_by": 255, "mean": [0, 0, 0], "std": [1, 1, 1]}}
ONE = version_id("colours", "1")


def colours(**more: Any) -> bytes:
    return mean_colours(WEIGHT, SIDE_PX, NAMES, **more)


def colour_store(place: Path, *versions: str, **more: Any) -> ModelStore:
    """Return a store with versions of the classifier `colours`."""
    store = ModelStore(str(place))
    for version in versions or ("1",):
        store.publish(version_id("colours", version), added_files(colours(**more), PLAIN))
    return store


def loaded(
    place: Path, weights: bytes, overrides: dict[str, Any] | None = None, version: VersionId = ONE
) -> Classifier:
    store = ModelStore(str(place))
    add_version(store, version, weights, overrides or {}, {"probe/cat.jpg": photo("cat")})
    return load_model(store, version)
