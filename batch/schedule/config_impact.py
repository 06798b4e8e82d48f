"""Compare the published model and thresholds with the wanted ones: what differs, what it needs, and why.

(published, wanted ConfiguredModel) -> ConfigChange(field, old, new, needs, why), one per leaf of ModelConfig,
by its dotted name ("preprocess.tiling.tile_px").
The most expensive change decides what is needed: nothing, the view published again, its layers computed again, or a
run. The inference key differs exactly if a change needs inference (tests/batch/schedule/test_config_impact.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from model_store.config import EXTERNAL, ModelConfig, MotionRuntime, Thresholds
from model_store.inference_key import NUMERICS_VERSION, canonical_json, inference_key

Need = Literal["nothing", "view", "postprocess", "inference"]
NEEDS: tuple[Need, ...] = get_args(Need)
"""Cheapest first."""

_MOTION = "a motion detector has these settings in place of weights"
_TILES = "the image is cut into different tiles"
_MERGED = "boxes of different tiles are merged differently before they are stored"
FIELD_NEEDS: dict[str, tuple[Need, str]] = {
    "": ("inference", "the inference key contains it"),
    "kind": ("inference", "a classifier has no boxes, and a detector's rows are not its results"),
    "runtime": ("inference", "another tool made the results, and this names which ones"),
    **{f"runtime.{name}": ("inference", _MOTION) for name in MotionRuntime.model_fields},
    "runtime.kind": ("nothing", "the key has the digest of the weights, not the runtime that reads them"),
    "runtime.weights": ("nothing", "a file name: the digest of the file decides"),
    "decoder": ("inference", "the network's output is decoded into different boxes"),
    "preprocess": ("inference", "the network gets different pixels"),
    "preprocess.stride_px": ("inference", "the network gets different pixels if resize is rect"),
    "preprocess.jpeg_shrink": ("inference", "JPEGs are decoded at a different size"),
    "preprocess.damaged": ("inference", "damaged JPEGs get detections instead of failing, or the reverse"),
    "preprocess.tiling": ("inference", "objects are detected in tiles, or no longer"),
    "preprocess.tiling.tile_px": ("inference", _TILES),
    "preprocess.tiling.overlap_frac": ("inference", _TILES),
    "preprocess.tiling.whole": ("inference", "the whole image is searched in addition to its tiles, or no longer"),
    "preprocess.tiling.merge": ("inference", _MERGED),
    "nms": ("inference", "different boxes of the network's output are kept, and only those are stored"),
    "labels": (
        "inference",
        "rows contain the label, and the key the list: a renamed label would have two names in one result "
        "(to rename what is shown without inference, keep the model and use a layer)",
    ),
    "score_floor": (
        "inference",
        "it decides what is stored; to show less or more of what is stored, change a threshold",
    ),
    "thresholds": ("view", "all scores down to score_floor are stored: publish again"),
    "batch": ("nothing", "it decides how images are batched: rows are the same"),
    **dict.fromkeys(("licence", "source", "description"), ("nothing", "text for people: no row depends on it")),
}
"""Needs and reasons by dotted name; a field that is not listed has those of its nearest parent."""
NUMERICS_AHEAD = 20
"""Newer numerics versions that are recognised, for results made before a release was rolled back."""


@dataclass(frozen=True)
class ConfiguredModel:
    """A model version, the numerics version of its results, and the thresholds of a view: maybe not the model's own."""

    config: ModelConfig
    weights_sha256: str
    shown: Thresholds
    numerics: int = NUMERICS_VERSION
    layers: tuple[str, ...] = ()

    @property
    def inference_key(self) -> str:
        return inference_key(self.config, self.weights_sha256, self.numerics)


@dataclass(frozen=True)
class ConfigChange:
    """A field that differs; a value is None if that side lacks the field."""

    field: str
    old: object
    new: object
    needs: Need
    why: str


def changes(old: ConfiguredModel, new: ConfiguredModel) -> list[ConfigChange]:
    """Return the changes, most expensive first; empty if both sides are the same.

    A field that only one kind of runtime has is compared only if both sides are of that kind.
    """
    changed = [*_config(old.config, new.config), *_identity(old, new), *_layers(old.layers, new.layers)]
    changed += threshold_changes(old.shown, new.shown, new.config.score_floor)
    return dearest_first(changed)


def dearest_first(found: Sequence[ConfigChange]) -> list[ConfigChange]:
    return sorted(found, key=lambda change: -NEEDS.index(change.needs))


def overall(found: Sequence[ConfigChange]) -> Need:
    """Return the most expensive need; "nothing" without changes."""
    return NEEDS[max((NEEDS.index(change.needs) for change in found), default=0)]


def threshold_changes(old: Thresholds, new: Thresholds, score_floor: float) -> Iterator[ConfigChange]:
    """Yield the changed thresholds, by label if it has its own; a threshold written differently is not a change."""
    if old.default != new.default:
        yield _threshold("default", old.default, new.default, score_floor)
    for label in sorted(old.per_label.keys() | new.per_label.keys()):
        before = old.per_label.get(label, old.default)
        after = new.per_label.get(label, new.default)
        if before != after:
            yield _threshold(f"per_label.{label}", before, after, score_floor)


def numerics_of(config: ModelConfig, weights_sha256: str, key: str) -> int | None:
    """Return the numerics version with which this config has this inference key, or None."""
    versions = range(1, NUMERICS_VERSION + NUMERICS_AHEAD)
    return next((n for n in versions if inference_key(config, weights_sha256, n) == key), None)


def _config(old: ModelConfig, new: ModelConfig) -> Iterator[ConfigChange]:
    """Yield changed fields of the config, without thresholds: `changes` compares the shown ones."""
    before, after = (side.model_dump(mode="json", exclude={"thresholds"}) for side in (old, new))
    for name, old_value, new_value in _differences("", before, after):
        yield ConfigChange(name, old_value, new_value, *_needs(name))


def _differences(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted name and both values of each difference in the fields that both sides have."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() & new.keys()):
            yield from _differences(f"{path}.{name}".lstrip("."), old[name], new[name])
    elif canonical_json(old) != canonical_json(new):
        yield path, old, new


def _needs(name: str) -> tuple[Need, str]:
    while name not in FIELD_NEEDS:
        name = name.rpartition(".")[0]
    return FIELD_NEEDS[name]


def _identity(old: ConfiguredModel, new: ConfiguredModel) -> Iterator[ConfigChange]:
    """Yield changed weights, and a changed numerics version."""
    kinds = {old.config.runtime.kind, new.config.runtime.kind}
    of_fields = kinds in ({"motion"}, {EXTERNAL})  # the digest is that of the fields
    if old.weights_sha256 != new.weights_sha256 and not of_fields:
        why = "different weights: every score and box may differ"
        yield ConfigChange("weights_sha256", old.weights_sha256, new.weights_sha256, "inference", why)
    if old.numerics != new.numerics:
        why = "the code computes the same model differently (model_store/inference_key.py lists how)"
        yield ConfigChange("numerics_version", old.numerics, new.numerics, "inference", why)


def _layers(old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[ConfigChange]:
    """Yield the change of layers. A layer is computed from those below it, so those above it can be removed."""
    if old[: len(new)] != new:
        yield ConfigChange("layers", old, new, "postprocess", "layers are computed from the stored rows")
    elif old != new:
        yield ConfigChange("layers", old, new, "view", "the topmost layers are removed: those below stay")


def _threshold(name: str, old: float, new: float, score_floor: float) -> ConfigChange:
    needs, why = FIELD_NEEDS["thresholds"]
    if new < score_floor:
        why += f"; no score below score_floor {score_floor:g} is stored, so none below it is shown"
    return ConfigChange(f"thresholds.{name}", old, new, needs, why)
