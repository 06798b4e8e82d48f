"""The policy's gates, held against an impact: each passed or failed, in words.

Impact, Gates --judge--> one Gate for each that is set. A pure function; `failed_gates` compares first.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from archive.tables import Tables
from archive.views import View
from batch.impact.compare import compare
from batch.impact.facts import Impact
from batch.impact.sides import NOTHING, side_of_view
from batch.policy import Gates
from model_store.config import Frozen


class Gate(Frozen):
    """`name` is the policy's field; `found` and `limit` are fractions or counts."""

    name: str
    passed: bool
    found: float
    limit: float
    words: str


def judge(impact: Impact, gates: Gates) -> list[Gate]:
    """Of nothing there is no fraction: where the denominator is 0, nothing is lost and all is covered."""
    return [
        _gate(name, impact, float(limit))
        for name in _RULES
        if (limit := getattr(gates, name)) is not None
    ]


def failed(judged: list[Gate]) -> list[str]:
    """The words of each gate that fails."""
    return [gate.words for gate in judged if not gate.passed]


def failed_gates(
    tables: Tables,
    old_view: View | None,
    new_view: View,
    gates: Gates,
    media: pa.Array | None = None,
) -> list[str]:
    """What speaks against publishing the new view in place of the old one (None: nothing is published).

    Raises StorageUnreachable.
    """
    old = NOTHING if old_view is None else side_of_view(old_view)
    return failed(judge(compare(tables, old, side_of_view(new_view), media), gates))


def _gate(name: str, impact: Impact, limit: float) -> Gate:
    part, whole, words = _RULES[name](impact)
    if whole is None:
        found, text = float(part), f"{part} {words}; at most {limit:g} ({name})"
        return Gate(name=name, passed=found <= limit, found=found, limit=limit, words=text)
    least = name.startswith("min_")
    found = part / whole if whole else float(least)
    bound = "at least" if least else "at most"
    text = f"{part} of {whole} ({_percent(found)}) {words}; {bound} {_percent(limit)} ({name})"
    passed = found >= limit if least else found <= limit
    return Gate(name=name, passed=passed, found=found, limit=limit, words=text)


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.4g} %"


Rule = Callable[[Impact], tuple[int, int | None, str]]
_RULES: dict[str, Rule] = {
    "max_lost_verified": lambda impact: (
        impact.verified.lost,
        None,
        "human assertions that the old side has right and the new one has not",
    ),
    "max_lost_frac": lambda impact: (
        impact.boxes.lost,
        impact.boxes.shown_old,
        "detections of the old side have no match in the new one",
    ),
    "max_emptied_frac": lambda impact: (
        impact.images.emptied,
        impact.images.compared,
        "images had detections and have none now",
    ),
    "max_failed_frac": lambda impact: (
        impact.images.new_failed,
        impact.images.new,
        "images of the new side failed",
    ),
    "min_coverage_frac": lambda impact: (
        impact.images.both,
        impact.images.old,
        "images of the old side have a result in the new one",
    ),
}
"""Gate of the policy to part, whole (None: the part is a count of its own) and words."""
