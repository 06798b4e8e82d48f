"""What a golden probe records of a classifier: the best classes of each picture, and their logits.

probe/expected.json: {"tolerance": {"logit": ..}, "images": {"cat.jpg": [{label, class_id, logit}, ..5]}}
Each must come back within the tolerance, and no other class may stand above them by more. Catches wrong
scaling, channel order or class order, and damaged weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from model_store.classifier import Classifier, Logits, best
from model_store.config import Frozen
from model_store.decoders.layout import OutputNonsense
from model_store.errors import ModelRefused

TOP = 5
TOLERANCE_FRAC, LEAST_TOLERANCE = 0.02, 1e-3
"""Of the distance from a picture's best logit to its median, and at least: the scale of logits is the network's own.
Wide enough for another CPU or GPU, far too narrow for colours the wrong way round."""


class ProbeClass(Frozen):
    label: str
    class_id: int = Field(ge=0)
    logit: float


class ClassTolerance(Frozen):
    logit: float = Field(default=LEAST_TOLERANCE, gt=0)


class ExpectedClasses(Frozen):
    tolerance: ClassTolerance = ClassTolerance()
    images: dict[str, list[ProbeClass]]


def expected_classes(classifier: Classifier, images: Mapping[str, bytes]) -> ExpectedClasses:
    """As this classifier sees these encoded images. Raises ImageError, ModelRefused."""
    seen = {name: _logits(classifier, data) for name, data in images.items()}
    spread = max((float(row.max() - np.median(row)) for row in seen.values()), default=0.0)
    tolerance = ClassTolerance(logit=max(LEAST_TOLERANCE, TOLERANCE_FRAC * spread))
    found = {name: _best(classifier, row) for name, row in seen.items()}
    return ExpectedClasses(tolerance=tolerance, images=found)


def require_distinct_classes(
    classifier: Classifier, files: Mapping[str, bytes], recorded: bytes
) -> None:
    """Raise ModelRefused for a probe in which all classes have one logit: it accepts them in any order."""
    expected = ExpectedClasses.model_validate_json(recorded)
    rows = [_logits(classifier, files[f"probe/{name}"]) for name in expected.images]
    if rows and all(np.ptp(row) <= expected.tolerance.logit for row in rows):
        raise ModelRefused(
            f"the probe cannot tell {classifier.info.id} from another model: all {len(classifier.labels)} classes have "
            "the same logit in it. Give another picture with --probe; if every picture is like this, the weights are "
            "untrained"
        )


def class_difference(
    classifier: Classifier, wanted: list[ProbeClass], data: bytes, tolerance: ClassTolerance
) -> str | None:
    """What is not as recorded, in words; None when all is well."""
    logits, labels = _logits(classifier, data), classifier.labels
    for want in wanted:
        if want.class_id >= len(labels) or labels[want.class_id] != want.label:
            return f"wanted class {want.class_id} to be {want.label}, which it is not called"
        found = float(logits[want.class_id])
        if abs(found - want.logit) > tolerance.logit:
            return f"wanted {_words(want)}, found {found:.3f}"
    known = {want.class_id for want in wanted}
    least = min((want.logit for want in wanted), default=float("inf")) + tolerance.logit
    others = [one for one in _best(classifier, logits) if one.class_id not in known]
    extra = next((one for one in others if one.logit > least), None)
    return f"unexpected {_words(extra)}" if extra else None


def _best(classifier: Classifier, logits: Logits) -> list[ProbeClass]:
    return [
        ProbeClass(label=classifier.labels[i], class_id=i, logit=float(logits[i]))
        for i in best(logits, TOP)
    ]


def _logits(classifier: Classifier, data: bytes) -> Logits:
    """(labels,) of the whole picture."""
    _, prepared = classifier.read(data)
    try:
        return classifier.infer(prepared.pixels)[0]
    except OutputNonsense as error:
        raise ModelRefused(f"{classifier.info.id} cannot be trusted: {error}") from error


def _words(one: ProbeClass) -> str:
    return f"{one.label} {one.logit:.3f}"
