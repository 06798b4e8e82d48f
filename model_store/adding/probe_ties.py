"""Mark the detections of a golden probe that depend on rounding: those of equal scores, of which any may be kept.

recorded files of a probe --mark_ties--> the same, with each detection `tied` that rounding noise replaces

Another CPU, GPU or number of threads rounds differently. This changes the order of equal scores, and so the boxes
that suppression keeps. To find them, the model runs on each image again with noise of that size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_store.classifier import Classifier
from model_store.config import MotionRuntime
from model_store.detector import LoadedDetector
from model_store.errors import ModelRefused
from model_store.probe import (
    EXPECTED,
    ExpectedProbe,
    ProbeDetection,
    Tolerance,
    match,
    recorded_detections,
    require_distinct_classes,
)
from model_store.runtimes import Session

NOISE = 1e-4
"""Largest relative change of an input value: float32 results of two machines differ by about this."""
DRAWS = 4


def mark_ties(model: LoadedDetector | Classifier, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the changed files of a newly recorded probe.

    Raises ModelRefused for a probe that cannot distinguish this model from another: it has detections, but each of
    them may be missing; or all classes of a classifier have the same logit.
    """
    if isinstance(model, Classifier):
        require_distinct_classes(model, files)
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
