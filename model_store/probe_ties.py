"""Mark what chance decides in a golden probe: detections of equal scores, among which suppression keeps any.

recorded files of a probe --mark_ties--> the same, with each detection `tied` that rounding noise replaces

Another CPU, GPU or number of threads rounds otherwise. Where scores are equal that changes their order, and with it
the boxes that are kept. So the model sees each picture again with noise of that size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_store.class_probe import require_distinct_classes
from model_store.classifier import Classifier
from model_store.config import MotionRuntime
from model_store.detector import LoadedDetector
from model_store.errors import ModelRefused
from model_store.probe import (
    EXPECTED,
    Expected,
    ProbeDetection,
    Tolerance,
    match,
    recorded_detections,
)
from model_store.runtimes import Session

NOISE = 1e-4
"""Largest change of an input value, relative to it: float32 results of two machines differ by about this."""
DRAWS = 4


def mark_ties(model: LoadedDetector | Classifier, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the changed files of a probe that was just recorded.

    Raises ModelRefused for a probe that cannot tell this model from another: it shows detections, and each of them
    may be missing; or all classes of a classifier have the same logit.
    """
    if isinstance(model, Classifier):
        require_distinct_classes(model, files, files[EXPECTED])
        return {}
    expected = Expected.model_validate_json(files[EXPECTED])
    if isinstance(model.config.runtime, MotionRuntime):  # whole numbers, which no machine rounds
        return {}
    images = {
        name: _marked(model, wanted, files[f"probe/{name}"], expected.tolerance)
        for name, wanted in expected.images.items()
    }
    expected = expected.model_copy(update={"images": images})
    floor = model.config.score_floor
    shown = sum(expected.shows(name, floor) for name in images)
    if shown and not sum(expected.binds(name, floor) for name in images):
        raise ModelRefused(
            f"the probe cannot tell {model.info.id} from another model: its {shown} detections have equal scores, so "
            "that any of them may be missing elsewhere. Give another picture with --probe; if every picture is like "
            "this, the weights are untrained"
        )
    return {EXPECTED: expected.to_json()}


class NoisySession:
    """A session whose input is a little larger, never less: inputs of whole numbers stay as they are."""

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
    """Return the detections of one picture, `tied` where a draw of noise replaces them by equally good ones."""
    noisy = replace(model, session=NoisySession(model.session))
    draws = [recorded_detections(noisy, data)[0] for _ in range(DRAWS)]
    tied = {place for found in draws for place in match(wanted, found, tolerance)[0]}
    return [
        one.model_copy(update={"tied": True}) if place in tied else one
        for place, one in enumerate(wanted)
    ]
