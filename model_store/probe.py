"""Golden probe: a version is ready only after it reproduces what it saw when it was added.

probe/expected.json: {"tolerance": {"iou": .., "score": ..}, "images": {"cat.jpg": [{label, score,
box_xyxy_px}, ..]}}, with everything the model said above its floor when the version was added.
A detection may be missing or new only within the score tolerance of the floor, or of the last one of a list that
is `full`; one that is `tied` (`probe_ties.py`) may also give way to others at its place. Catches a wrong decoder,
wrong channel order, wrong class order and damaged weights at once. Of a classifier: `class_probe.py`.
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
    tied: bool = False


class Tolerance(Frozen):
    """Wide enough for another CPU or GPU, far too narrow for another decoder."""

    iou: float = 0.95
    score: float = 0.02


class Expected(Frozen):
    tolerance: Tolerance = Tolerance()
    images: dict[str, list[ProbeDetection]]
    full: tuple[str, ...] = ()
    """Pictures with more detections than the list has places."""

    def shows(self, name: str, floor: float) -> int:
        """Return how many detections of a picture are well above the floor."""
        return sum(one.score > floor + self.tolerance.score for one in self.images[name])

    def binds(self, name: str, floor: float) -> int:
        """Return how many of these must be found again."""
        return sum(
            one.score > self.cut(name, floor) + self.tolerance.score and not one.tied
            for one in self.images[name]
        )

    def cut(self, name: str, floor: float) -> float:
        """Return the score at which the list of a picture ends: the floor, or that of the last one of a full list."""
        full = name in self.full and self.images[name]
        return max(floor, min(one.score for one in self.images[name])) if full else floor

    def to_json(self) -> bytes:
        """Return expected.json; what came later is left out where it says nothing."""
        value = self.model_dump(mode="json", exclude_defaults=True)
        value = {"tolerance": self.tolerance.model_dump(mode="json"), **value}
        return json.dumps(value, indent=1).encode()


def record_probe(
    model: LoadedDetector | Classifier, images: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Files of the probe folder for these encoded images, as this model sees them."""
    if isinstance(model, Classifier):
        classes = expected_classes(model, images)
        expected = json.dumps(classes.model_dump(mode="json"), indent=1).encode()
    else:
        seen = {name: recorded_detections(model, data) for name, data in images.items()}
        expected = Expected(
            images={name: found for name, (found, _) in seen.items()},
            full=tuple(name for name, (_, saturated) in seen.items() if saturated),
        ).to_json()
    return {**{f"probe/{name}": data for name, data in images.items()}, EXPECTED: expected}


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

        def of_classes(_: str, wanted: list[ProbeClass], data: bytes) -> str | None:
            return class_difference(model, wanted, data, classes.tolerance)

        return _first(where, classes.images, files, of_classes)
    expected = _expected(Expected, where, files)

    floor = model.config.score_floor

    def of_boxes(name: str, wanted: list[ProbeDetection], data: bytes) -> str | None:
        found, saturated = recorded_detections(model, data)
        cut = expected.cut(name, floor)
        is_cut = saturated and name in expected.full and found
        end = max(floor, min(one.score for one in found)) if is_cut else floor
        return _difference(wanted, found, expected.tolerance, floor, (end, cut))

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
    difference: Callable[[str, W, bytes], str | None],
) -> str | None:
    for name, wanted in images.items():
        if f"probe/{name}" not in files:
            raise ModelRefused(f"{where} names {name}, which is missing")
        words = difference(name, wanted, files[f"probe/{name}"])
        if words:
            return f"{name}: {words}"
    return None


def recorded_detections(detector: LoadedDetector, data: bytes) -> tuple[list[ProbeDetection], bool]:
    """Return the detections of encoded bytes, and True for a list that was cut. Raises ImageError, ModelRefused."""
    try:
        _, found = detector.detect_encoded(data)
    except OutputNonsense as error:
        raise ModelRefused(f"{detector.info.id} cannot be trusted: {error}") from error
    labels = detector.info.labels
    rows = [
        ProbeDetection(label=labels[class_id], score=score, box_xyxy_px=tuple(box))
        for box, score, class_id in zip(
            found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True
        )
    ]
    return rows, found.saturated


def _difference(
    wanted: list[ProbeDetection],
    found: list[ProbeDetection],
    tolerance: Tolerance,
    floor: float,
    cuts: tuple[float, float] | None = None,
) -> str | None:
    """Return the first detection without a counterpart, in words; None when all is well.

    `cuts` are the scores at which the list found and the recorded one end, where that is above the floor.
    """
    end, cut = cuts or (floor, floor)
    missing, extra = match(wanted, found, tolerance)
    for want in (wanted[place] for place in missing):
        at_floor = abs(want.score - floor) <= tolerance.score
        at_end = end > floor and want.score <= end + tolerance.score
        if not (at_floor or at_end or want.tied):
            return f"wanted {_words(want)}, found {', '.join(map(_words, found[:3])) or 'nothing'}"
    for have in (found[place] for place in extra):
        if have.score > cut + tolerance.score and not _stands_in(have, wanted, tolerance):
            return f"unexpected {_words(have)}"
    return None


def match(
    wanted: list[ProbeDetection], found: list[ProbeDetection], tolerance: Tolerance
) -> tuple[list[int], list[int]]:
    """Return the places in `wanted` and in `found` that have no counterpart, each used once, the nearest first."""
    left = dict(enumerate(found))
    missing: list[int] = []
    for place, want in enumerate(wanted):
        same = [i for i, have in left.items() if _same(want, have, tolerance)]
        if same:
            del left[max(same, key=lambda i: _iou(want.box_xyxy_px, left[i].box_xyxy_px))]
        else:
            missing.append(place)
    return missing, list(left)


def _stands_in(have: ProbeDetection, wanted: list[ProbeDetection], tolerance: Tolerance) -> bool:
    """Return True for a detection that may have won at the place of a tied one."""
    return any(
        want.tied
        and have.score <= want.score + tolerance.score
        and _iou(have.box_xyxy_px, want.box_xyxy_px) > 0
        for want in wanted
    )


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
