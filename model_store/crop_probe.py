"""Record and compare the golden probe of a classifier or an embedder: its values for the whole of each probe image.

A classifier's expected.json: {"tolerance": {"logit": ..}, "images": {"cat.jpg": [{label, class_id, logit}, ..5]}}. Each
logit must be reproduced within the tolerance, and no other class may exceed the recorded ones by more.

An embedder's: {"tolerance": {"cosine": .., "length_frac": ..}, "images": {"cat.jpg": [1.25, ..]}}. Each vector must
have the direction and the length of the recorded one within the tolerance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model_store.classifier import Classifier, best
from model_store.crop_model import CropModel, Values
from model_store.decoders.layout import OutputNonsense
from model_store.embedder import Embedder
from model_store.errors import ModelRefused
from model_store.frozen import Frozen

TOP = 5
TOLERANCE_FRAC, LEAST_TOLERANCE = 0.02, 1e-3
"""Tolerance as a fraction of the distance from an image's best logit to its median, and its minimum: the scale of
logits depends on the network. Wide enough for another CPU or GPU, far too narrow for swapped channels."""


class ProbeClass(Frozen):
    label: str
    class_id: int = Field(ge=0)
    logit: float


class ClassTolerance(Frozen):
    logit: float = Field(default=LEAST_TOLERANCE, gt=0)


class ExpectedClasses(Frozen):
    tolerance: ClassTolerance = ClassTolerance()
    images: dict[str, list[ProbeClass]]

    def difference(self, model: CropModel, name: str, logits: Values) -> str | None:
        """Return the first difference from the recorded classes of an image in words, or None."""
        labels, wanted, tolerance = model.info.labels, self.images[name], self.tolerance.logit
        for want in wanted:
            if want.class_id >= len(labels) or labels[want.class_id] != want.label:
                return f"expected class {want.class_id} to be {want.label}: the labels have changed"
            found = float(logits[want.class_id])
            if abs(found - want.logit) > tolerance:
                return f"expected {want.label} {want.logit:.3f}, found {found:.3f}"
        recorded = {want.class_id for want in wanted}
        limit = min((want.logit for want in wanted), default=float("inf")) + tolerance
        for other in _best(labels, logits):
            if other.class_id not in recorded and other.logit > limit:
                return f"unexpected {other.label} {other.logit:.3f}"
        return None


class VectorTolerance(Frozen):
    """Wide enough for another CPU, a GPU or 16 bits, far too narrow for swapped channels or another network."""

    cosine: float = Field(default=0.999, gt=0, lt=1, description="minimum cosine of recorded and found vector")
    length_frac: float = Field(default=0.02, gt=0, lt=1, description="largest relative difference of their lengths")


class ExpectedVectors(Frozen):
    tolerance: VectorTolerance = VectorTolerance()
    images: dict[str, list[float]]

    def difference(self, _: CropModel, name: str, vector: Values) -> str | None:
        """Return how a vector differs from the recorded one of an image in words, or None."""
        wanted = np.array(self.images[name], np.float64)
        if len(wanted) != len(vector):
            return f"expected {len(wanted)} numbers, found {len(vector)}"
        similarity = cosine(wanted, vector)
        if not similarity >= self.tolerance.cosine:
            return f"expected the recorded vector, found one with a cosine of {similarity:.4f} to it"
        length, found = float(np.linalg.norm(wanted)), float(np.linalg.norm(vector.astype(np.float64)))
        if abs(found - length) > self.tolerance.length_frac * length:
            return f"expected a vector of length {length:.4g}, found {found:.4g}"
        return None


def expected_kind(model: CropModel) -> type[ExpectedClasses] | type[ExpectedVectors]:
    """Return the type of the model's expected.json."""
    return ExpectedClasses if isinstance(model, Classifier) else ExpectedVectors


def expected_values(model: CropModel, values: Mapping[str, Values]) -> bytes:
    """Return expected.json for the values of each probe image."""
    if isinstance(model, Embedder):
        vectors = {name: [float(f"{value:.7g}") for value in row.tolist()] for name, row in values.items()}
        expected = ExpectedVectors(images=vectors)
    else:
        spread = max((float(row.max() - np.median(row)) for row in values.values()), default=0.0)
        tolerance = ClassTolerance(logit=max(LEAST_TOLERANCE, TOLERANCE_FRAC * spread))
        classes = {name: _best(model.info.labels, row) for name, row in values.items()}
        expected = ExpectedClasses(tolerance=tolerance, images=classes)
    return json.dumps(expected.model_dump(mode="json"), indent=1).encode()


def require_distinct(model: CropModel, recorded: bytes, files: Mapping[str, bytes]) -> None:
    """Raise ModelRefused if the recorded probe cannot distinguish the model from another.

    All classes of a classifier have one logit, so that any order would fit; or an embedder returns the vector of a grey
    image for each of them.
    """
    expected = expected_kind(model).model_validate_json(recorded)
    rows = [values_of(model, files[f"probe/{name}"]) for name in expected.images]
    if isinstance(expected, ExpectedClasses):
        alike = f"all {model.width} classes have the same logit"
        distinct = any(np.ptp(row) > expected.tolerance.logit for row in rows)
    else:
        alike = "it gives the vector of a grey image"
        grey = model.of_images([np.full((64, 64, 3), 128, np.uint8)])[0]
        distinct = any(cosine(row, grey) < expected.tolerance.cosine for row in rows)
    if rows and not distinct:
        raise ModelRefused(
            f"the probe cannot distinguish {model.info.id} from another model: {alike}. Choose another image with "
            "--probe; if this happens with every image, the weights are untrained"
        )


def values_of(model: CropModel, data: bytes) -> Values:
    """Return the values (width,) of a whole encoded image. Raises ImageError, ModelRefused."""
    _, prepared = model.read(data)
    try:
        return model.infer(prepared.pixels)[0]
    except OutputNonsense as error:
        raise ModelRefused(f"{model.info.id} cannot be trusted: {error}") from error


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return the cosine of the angle between two vectors, in float64."""
    first, second = a.astype(np.float64), b.astype(np.float64)
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def _best(labels: tuple[str, ...], logits: Values) -> list[ProbeClass]:
    return [ProbeClass(label=labels[i], class_id=i, logit=float(logits[i])) for i in best(logits, TOP)]
