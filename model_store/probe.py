"""Golden probe: a version is ready only after it reproduces what it saw when it was added.

probe/expected.json: {"tolerance": {"iou": .., "score": ..}, "images": {"cat.jpg": [{label, score,
box_xyxy_px}, ..]}}, with everything the model said above its floor when the version was added.
A detection may be missing or new only within the score tolerance of the floor. Catches a wrong
decoder, wrong channel order, wrong class order and damaged weights at once. Of a classifier: `class_probe.py`.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (libraries here have no complete types)

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from model_store.class_probe import (
    ExpectedClasses,
    ProbeClass,
    class_difference,
    expected_classes,
)
from model_store.classifier import Classifier
from model_store.config import Frozen
from model_store.decoders.layout import OutputNonsense
from model_store.errors import ModelRefused, ProbeFailed

if TYPE_CHECKING:
    from model_store.detector import LoadedDetector

EXPECTED = "probe/expected.json"
E = TypeVar("E", bound=Frozen)
W = TypeVar("W")


class ProbeDetection(Frozen):
    label: str
    score: float
    box_xyxy_px: tuple[float, float, float, float]


class Tolerance(Frozen):
    """Wide enough for another CPU or GPU, far too narrow for another decoder."""

    iou: float = 0.95
    score: float = 0.02


class Expected(Frozen):
    tolerance: Tolerance = Tolerance()
    images: dict[str, list[ProbeDetection]]


def record_probe(
    model: LoadedDetector | Classifier, images: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Files of the probe folder for these encoded images, as this model sees them."""
    if isinstance(model, Classifier):
        expected = expected_classes(model, images)
    else:
        expected = Expected(images={name: _detections(model, d) for name, d in images.items()})
    files = {f"probe/{name}": data for name, data in images.items()}
    files[EXPECTED] = json.dumps(expected.model_dump(mode="json"), indent=1).encode()
    return files


def outside_picture(files: Mapping[str, bytes]) -> int:
    """How many recorded detections, cut to their picture, have no area: they lay in the padding, where
    a network sees nothing unless its pixels are not prepared as it was trained.
    """
    expected = Expected.model_validate_json(files[EXPECTED])
    boxes = [one.box_xyxy_px for found in expected.images.values() for one in found]
    return sum(x1 >= x2 or y1 >= y2 for x1, y1, x2, y2 in boxes)


def check_probe(model: LoadedDetector | Classifier, files: Mapping[str, bytes]) -> None:
    """Raises ProbeFailed with the first difference, ModelRefused when the probe is unusable."""
    difference = first_difference(model, files)
    if difference:
        reads = "scores" if isinstance(model, Classifier) else "decoder"
        raise ProbeFailed(
            f"{model.info.id} does not reproduce its probe {difference}; the "
            f"weights, labels, preprocessing or {reads} are not the ones it was added with"
        )


def first_difference(model: LoadedDetector | Classifier, files: Mapping[str, bytes]) -> str | None:
    """Picture and row that are not as recorded, in words; None when all are.

    Raises ModelRefused when the probe is unusable.
    """
    where = f"{model.info.id} {EXPECTED}"
    if isinstance(model, Classifier):
        classes = _expected(ExpectedClasses, where, files)

        def of_classes(wanted: list[ProbeClass], data: bytes) -> str | None:
            return class_difference(model, wanted, data, classes.tolerance)

        return _first(where, classes.images, files, of_classes)
    expected = _expected(Expected, where, files)

    def of_boxes(wanted: list[ProbeDetection], data: bytes) -> str | None:
        found = _detections(model, data)
        return _difference(wanted, found, expected.tolerance, model.config.score_floor)

    return _first(where, expected.images, files, of_boxes)


def _expected(kind: type[E], where: str, files: Mapping[str, bytes]) -> E:
    if EXPECTED not in files:
        raise ModelRefused(f"{where} is missing; add the version with --probe IMAGE")
    try:
        return kind.model_validate_json(files[EXPECTED])
    except ValidationError as error:
        raise ModelRefused(f"{where} is damaged: {error.errors()[0]['msg']}") from error


def _first(
    where: str,
    images: Mapping[str, W],
    files: Mapping[str, bytes],
    difference: Callable[[W, bytes], str | None],
) -> str | None:
    for name, wanted in images.items():
        if f"probe/{name}" not in files:
            raise ModelRefused(f"{where} names {name}, which is missing")
        words = difference(wanted, files[f"probe/{name}"])
        if words:
            return f"{name}: {words}"
    return None


def _detections(detector: LoadedDetector, data: bytes) -> list[ProbeDetection]:
    try:
        _, found = detector.detect_encoded(data)
    except OutputNonsense as error:
        raise ModelRefused(f"{detector.info.id} cannot be trusted: {error}") from error
    labels = detector.info.labels
    return [
        ProbeDetection(label=labels[class_id], score=score, box_xyxy_px=tuple(box))
        for box, score, class_id in zip(
            found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True
        )
    ]


def _difference(
    wanted: list[ProbeDetection], found: list[ProbeDetection], tolerance: Tolerance, floor: float
) -> str | None:
    """What is not matched one to one, in words; None when all is well."""
    left = list(found)
    for want in wanted:
        match = next((have for have in left if _same(want, have, tolerance)), None)
        if match is not None:
            left.remove(match)
        elif abs(want.score - floor) > tolerance.score:
            return f"wanted {_words(want)}, found {', '.join(map(_words, found[:3])) or 'nothing'}"
    extra = next((have for have in left if have.score > floor + tolerance.score), None)
    return f"unexpected {_words(extra)}" if extra else None


def _same(want: ProbeDetection, have: ProbeDetection, tolerance: Tolerance) -> bool:
    return (
        want.label == have.label
        and abs(want.score - have.score) <= tolerance.score
        and _iou(want.box_xyxy_px, have.box_xyxy_px) >= tolerance.iou
    )


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """1 for equal boxes, even without area or inverted: a network may say such things."""
    if a == b:
        return 1.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0.0, width) * max(0.0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def _words(one: ProbeDetection) -> str:
    return f"{one.label} {one.score:.3f} at {[round(v) for v in one.box_xyxy_px]}"
