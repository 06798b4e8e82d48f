"""What differs between two ways to see an archive, what each difference needs, and why.

(what is published: Side, what is wanted: Side) -> Change(field, old, new, needs, why), one a field
The dearest of them says what the whole needs: nothing, the view published again, its layers computed
again, or a run. The inference key differs exactly where a change needs inference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batch.field_needs import FIELD_NEEDS, NEEDS, Need
from model_store.config import ModelConfig, Thresholds
from model_store.inference_key import NUMERICS_VERSION, canonical_json, inference_key

NUMERICS_AHEAD = 20
"""Results of newer code than this are recognised so far: a release that was taken back."""


@dataclass(frozen=True)
class Side:
    """A model version as the code that made (or would make) its results has it, and how it is shown.

    `shown` are the thresholds of the view: a view may be published with others than its model's own.
    """

    config: ModelConfig
    weights_sha256: str
    shown: Thresholds
    numerics: int = NUMERICS_VERSION
    layers: tuple[str, ...] = ()

    @property
    def inference_key(self) -> str:
        return inference_key(self.config, self.weights_sha256, self.numerics)


@dataclass(frozen=True)
class Change:
    """One field; None where a side has no such field."""

    field: str
    old: object
    new: object
    needs: Need
    why: str


def changes(old: Side, new: Side) -> list[Change]:
    """The dearest first; empty when both sides are the same.

    A field that one kind of runtime alone has is named only where both sides are of that kind.
    """
    found = [*_config(old.config, new.config), *_weights(old, new)]
    found += [
        *_numerics(old, new),
        *_layers(old.layers, new.layers),
        *threshold_changes(old.shown, new.shown, new.config.score_floor),
    ]
    return dearest_first(found)


def dearest_first(found: Sequence[Change]) -> list[Change]:
    return sorted(found, key=lambda change: -NEEDS.index(change.needs))


def overall(found: Sequence[Change]) -> Need:
    """The dearest need of all; "nothing" of none."""
    return NEEDS[max((NEEDS.index(change.needs) for change in found), default=0)]


def threshold_changes(old: Thresholds, new: Thresholds, score_floor: float) -> Iterator[Change]:
    """By label where one has its own; two ways to write the same threshold are no change."""
    if old.default != new.default:
        yield _threshold("default", old.default, new.default, score_floor)
    for label in sorted(old.per_label.keys() | new.per_label.keys()):
        before = old.per_label.get(label, old.default)
        after = new.per_label.get(label, new.default)
        if before != after:
            yield _threshold(f"per_label.{label}", before, after, score_floor)


def numerics_of(config: ModelConfig, weights_sha256: str, key: str) -> int | None:
    """The numerics version under which this config has this inference key; None: it is another config's."""
    versions = range(1, NUMERICS_VERSION + NUMERICS_AHEAD)
    return next((n for n in versions if inference_key(config, weights_sha256, n) == key), None)


def _config(old: ModelConfig, new: ModelConfig) -> Iterator[Change]:
    """Thresholds are compared as they are shown, not here."""
    before, after = (side.model_dump(mode="json", exclude={"thresholds"}) for side in (old, new))
    for name, one, other in _differences("", before, after):
        yield Change(name, one, other, *FIELD_NEEDS[name])


def _differences(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name and both values. Fields that one kind of runtime alone has are not compared."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() & new.keys()):
            yield from _differences(f"{path}.{name}".lstrip("."), old[name], new[name])
    elif canonical_json(old) != canonical_json(new):
        yield path, old, new


def _weights(old: Side, new: Side) -> Iterator[Change]:
    both_motion = old.config.runtime.kind == new.config.runtime.kind == "motion"
    if old.weights_sha256 != new.weights_sha256 and not both_motion:  # then it digests the fields
        why = "other weights: every score and box may differ"
        yield Change("weights_sha256", old.weights_sha256, new.weights_sha256, "inference", why)


def _numerics(old: Side, new: Side) -> Iterator[Change]:
    if old.numerics != new.numerics:
        why = "the code computes otherwise from the same model (model_store/inference_key.py says what)"
        yield Change("numerics_version", old.numerics, new.numerics, "inference", why)


def _layers(old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[Change]:
    """A layer is made from what is below it, so what is taken off the top leaves the others as they are."""
    if old == new:
        return
    if old[: len(new)] == new:
        yield Change("layers", old, new, "view", "the topmost are left out: those below stay")
        return
    yield Change("layers", old, new, "postprocess", "layers are made from the stored rows")


def _threshold(name: str, old: float, new: float, score_floor: float) -> Change:
    needs, why = FIELD_NEEDS[f"thresholds.{name.partition('.')[0]}"]
    if new < score_floor:
        why += (
            f"; nothing is stored below score_floor {score_floor:g}, so no less than that is shown"
        )
    return Change(f"thresholds.{name}", old, new, needs, why)
