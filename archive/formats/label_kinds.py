"""Decide by its label what a detection is: an animal, a person, a vehicle or unknown.

The names are those of MegaDetector, SpeciesNet and COCO. Every other label is an animal, unless the user states its
kind.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["animal", "human", "vehicle", "unknown"]
_NAMES: dict[Kind, tuple[str, ...]] = {
    "human": ("human", "person", "people", "pedestrian", "homo sapiens"),
    "vehicle": ("vehicle", "car", "truck", "bus", "motorcycle", "motorbike", "bicycle", "boat"),
    "unknown": ("unknown", "object"),
}
_KINDS: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names}


def kind_of(label: str) -> Kind:
    """Return the kind of a label, in any case."""
    return _KINDS.get(label.strip().casefold(), "animal")
