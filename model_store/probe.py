"""Record and check the golden probe: a version is ready only if it reproduces its recorded results.

A detector's probe/expected.json: {"tolerance": {"iou": .., "score": ..}, "images": {"cat.jpg": [{label, score,
box_xyxy_px}, ..]}}, with all detections above the floor when the version was added. A detection may be missing or new
only within the score tolerance of the floor, or of the end of a `full` list. A `tied` detection
(`adding/add.py`) may also be replaced by others at its place.

Those of classifiers and embedders are in `crop_probe.py`.

The probe detects a wrong decoder, scaling, channel order or class order, and damaged weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from pydantic import ValidationError

from model_store.config import ModelConfig
from model_store.crop_model import CropModel
from model_store.crop_probe import expected_kind, expected_values, values_of
from model_store.decoders.layout import OutputNonsense
from model_store.detector import LoadedDetector
from model_store.errors import ModelRefused, ProbeFailed, ResightError, error_text
from model_store.frozen import Frozen, wrong_fields

EXPECTED = "probe/expected.json"
E = TypeVar("E", bound=Frozen)


class ProbeDetection(Frozen):
    label: str
    score: float
    box_xyxy_px: tuple[float, float, float, float]
    tied: bool = False


class Tolerance(Frozen):
    """Wide enough for another CPU or GPU, far too narrow for another decoder."""

    iou: float = 0.95
    score: float = 0.02


class ExpectedProbe(Frozen):
    tolerance: Tolerance = Tolerance()
    images: dict[str, list[ProbeDetection]]
    full: tuple[str, ...] = ()
    """Images with more detections than the list can hold."""

    def cut(self, name: str, floor: float) -> float:
        """Return the score at which the list of an image ends: the floor, or the last score of a full list."""
        return _end(self.images[name], name in self.full, floor)

    def to_json(self) -> bytes:
        """Return expected.json, without later fields that have their default."""
        value = self.model_dump(mode="json", exclude_defaults=True)
        value = {"tolerance": self.tolerance.model_dump(mode="json"), **value}
        return json.dumps(value, indent=1).encode()


def record_probe(model: LoadedDetector | CropModel, images: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of the probe folder: these encoded images, and this model's results for them.

    Raises ImageError, ModelRefused.
    """
    if isinstance(model, CropModel):
        expected = expected_values(model, {name: values_of(model, data) for name, data in images.items()})
    else:
        try:
            results = {name: recorded_detections(model, data) for name, data in images.items()}
        except ResightError:
            raise
        except Exception as error:  # each runtime has its own kinds
            raise ModelRefused(
                "the graph does not run on the probe; if it needs one size, although it declares others, add to the "
                f'config file: {{"preprocess": {{"resize": "letterbox"}}}}: {error_text(error)}'
            ) from error
        expected = ExpectedProbe(
            images={name: found for name, (found, _) in results.items()},
            full=tuple(name for name, (_, saturated) in results.items() if saturated),
        ).to_json()
    return {**{f"probe/{name}": data for name, data in images.items()}, EXPECTED: expected}


def outside_picture(config: ModelConfig, expected: bytes) -> int:
    """Return the number of recorded detections without area inside their image, at the thresholds of the model.

    They lie in the padding, where a network detects nothing unless preprocessing differs from its training. Below the
    thresholds, any network does.
    """
    least = dict(zip(config.labels, config.class_thresholds, strict=True))
    images = ExpectedProbe.model_validate_json(expected).images
    boxes = [row.box_xyxy_px for found in images.values() for row in found if row.score >= least[row.label]]
    return sum(x1 >= x2 or y1 >= y2 for x1, y1, x2, y2 in boxes)


def check_probe(model: LoadedDetector | CropModel, files: Mapping[str, bytes]) -> None:
    """Raise ProbeFailed with the first difference, or ModelRefused if the probe is unusable."""
    difference = first_difference(model, files)
    if difference:
        output = "decoder" if isinstance(model, LoadedDetector) else "output"
        raise ProbeFailed(
            f"{model.info.id} does not reproduce its probe {difference}; its weights, labels, preprocessing or "
            f"{output} have changed since it was added"
        )


def first_difference(model: LoadedDetector | CropModel, files: Mapping[str, bytes]) -> str | None:
    """Return the first image and row that differ from the record, in words, or None.

    Raises ModelRefused if the probe is unusable.
    """
    where = f"{model.info.id} {EXPECTED}"
    if isinstance(model, CropModel):
        values = _expected(expected_kind(model), where, files)
        pictures = _pictures(where, values.images, files)
        differences = ((name, values.difference(model, name, values_of(model, data))) for name, data in pictures)
    else:
        boxes = _expected(ExpectedProbe, where, files)
        pictures = _pictures(where, boxes.images, files)
        differences = ((name, _box_difference(model, boxes, name, data)) for name, data in pictures)
    return next((f"{name}: {words}" for name, words in differences if words), None)


def _expected(kind: type[E], where: str, files: Mapping[str, bytes]) -> E:
    if EXPECTED not in files:
        raise ModelRefused(f"{where} is missing; add the version with --probe IMAGE")
    try:
        return kind.model_validate_json(files[EXPECTED])
    except ValidationError as error:
        raise ModelRefused(f"{where} is damaged: {wrong_fields(error, kind)}") from error


def _pictures(where: str, names: Iterable[str], files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if f"probe/{name}" not in files:
            raise ModelRefused(f"{where} lists {name}, which is missing")
        yield name, files[f"probe/{name}"]


def recorded_detections(detector: LoadedDetector, data: bytes) -> tuple[list[ProbeDetection], bool]:
    """Return the detections in encoded bytes, and True if their list is full. Raises ImageError, ModelRefused."""
    try:
        _, found = detector.detect_encoded(data)
    except OutputNonsense as error:
        raise ModelRefused(f"{detector.info.id} cannot be trusted: {error}") from error
    columns = (found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist())
    labels = detector.info.labels
    rows = [
        ProbeDetection(label=labels[class_id], score=score, box_xyxy_px=tuple(box))  # pyright: ignore[reportUnknownArgumentType]
        for box, score, class_id in zip(*columns, strict=True)
    ]
    return rows, found.saturated


def _box_difference(detector: LoadedDetector, expected: ExpectedProbe, name: str, data: bytes) -> str | None:
    """Return the first detection of an image without a counterpart, in words, or None."""
    floor, tolerance, wanted = detector.config.score_floor, expected.tolerance, expected.images[name]
    found, saturated = recorded_detections(detector, data)
    end, cut = _end(found, saturated and name in expected.full, floor), expected.cut(name, floor)
    missing, extra = match(wanted, found, tolerance)
    for want in (wanted[place] for place in missing):
        at_floor = abs(want.score - floor) <= tolerance.score
        at_end = end > floor and want.score <= end + tolerance.score
        if not (at_floor or at_end or want.tied):
            return f"expected {_words(want)}, found {', '.join(map(_words, found[:3])) or 'nothing'}"
    for have in (found[place] for place in extra):
        if have.score > cut + tolerance.score and not _replaces_tied(have, wanted, tolerance):
            return f"unexpected {_words(have)}"
    return None


def _end(rows: list[ProbeDetection], full: bool, floor: float) -> float:
    """Return the score at which a list ends: the floor, or its last score if it is full."""
    return max(floor, min(row.score for row in rows)) if full and rows else floor


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


def _replaces_tied(have: ProbeDetection, wanted: list[ProbeDetection], tolerance: Tolerance) -> bool:
    """Return True if a detection may have replaced a tied one at its place."""
    return any(
        want.tied and have.score <= want.score + tolerance.score and _iou(have.box_xyxy_px, want.box_xyxy_px) > 0
        for want in wanted
    )


def _same(want: ProbeDetection, have: ProbeDetection, tolerance: Tolerance) -> bool:
    return (
        want.label == have.label
        and abs(want.score - have.score) <= tolerance.score
        and _iou(want.box_xyxy_px, have.box_xyxy_px) >= tolerance.iou
    )


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Return the IoU; 1 for equal boxes, even without area or inverted, which networks may return."""
    if a == b:
        return 1.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0.0, width) * max(0.0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def _words(row: ProbeDetection) -> str:
    return f"{row.label} {row.score:.3f} at {[round(v) for v in row.box_xyxy_px]}"
