"""Judge a comparison by the gates of the policy, and summarise it as text.

Impact, Gates --judge--> a Gate for each limit that is set. `judge` is pure; `failed_gates` compares first.
Comparison, judged gates --verdict--> Verdict: the first lines of `runs diff` and of its report
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from operator import attrgetter

import pyarrow as pa

from archive.delta.tables import Tables
from archive.views.publications import last_event, last_sealed
from archive.views.views import View, Views
from batch.publishing.impact.compare import Comparison, compare
from batch.publishing.impact.extrapolate import Expected, Extrapolation, extrapolate, sample_counts
from batch.publishing.impact.measure import Impact
from batch.publishing.impact.result_sets import NOTHING, PUBLISHED, Side, side_of_view
from batch.schedule.policy import Gates
from model_store.frozen import Frozen


class Gate(Frozen):
    """The result of a gate: `name` is the field of the policy; `found` and `limit` are fractions or counts."""

    name: str
    passed: bool
    found: float
    limit: float
    words: str


def judge(impact: Impact, gates: Gates) -> list[Gate]:
    """Return the result of each gate that is set. A loss of 0 in 0 is 0, a coverage of 0 in 0 is 1."""
    return [_gate(name, impact, float(limit)) for name in _RULES if (limit := getattr(gates, name)) is not None]


def failed(judged: Sequence[Gate]) -> list[str]:
    """Return the explanation of each gate that fails."""
    return [gate.words for gate in judged if not gate.passed]


def failed_gates(
    tables: Tables, old_view: View | None, new_view: View, gates: Gates, media: pa.Array | None = None
) -> list[str]:
    """Return the failing gates for a new view in place of the old one (None: nothing is published), as texts.

    Raises StorageUnreachable.
    """
    old = NOTHING if old_view is None else side_of_view(old_view)
    return failed(judge(compare(tables, old, side_of_view(new_view), media), gates))


def _gate(name: str, impact: Impact, limit: float) -> Gate:
    part_of, whole_of, words = _RULES[name]
    part = int(attrgetter(part_of)(impact))
    if not whole_of:
        text = f"{part} {words}; at most {limit:g} ({name})"
        return Gate(name=name, passed=part <= limit, found=float(part), limit=limit, words=text)
    whole, is_minimum = int(attrgetter(whole_of)(impact)), name.startswith("min_")
    found = part / whole if whole else float(is_minimum)
    bound = "at least" if is_minimum else "at most"
    text = f"{part} of {whole} ({_percent(found)}) {words}; {bound} {_percent(limit)} ({name})"
    passed = found >= limit if is_minimum else found <= limit
    return Gate(name=name, passed=passed, found=found, limit=limit, words=text)


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.4g} %"


_RULES = {
    "max_lost_verified": ("verified.lost", "", "human assertions are right on the old side and not on the new one"),
    "max_lost_frac": ("boxes.lost", "boxes.shown_old", "detections of the old side have no match in the new one"),
    "max_emptied_frac": (
        "images.emptied",
        "images.compared",
        "images with detections on the old side have none on the new one",
    ),
    "max_failed_frac": ("images.new_failed", "images.new", "images of the new side failed"),
    "min_coverage_frac": ("images.both", "images.old", "images of the old side have a result in the new one"),
}
"""Map each gate of the policy to part, whole ("" if the part is compared as a count) and explanation."""


class Verdict(Frozen):
    """The summary; `estimate` is "" unless NEW is a sample, `next` a sentence, `command` its command line or ""."""

    passed: bool
    headline: str
    compared: str
    changes: str
    estimate: str
    next: str
    command: str
    gates: tuple[Gate, ...]


def verdict(tables: Tables, comparison: Comparison, gates: list[Gate]) -> Verdict:
    """Return the summary of a comparison and its gates. Raises StorageUnreachable."""
    impact, expected = comparison.impact, estimate(tables, comparison)
    step, command = _next(Views(tables.url), impact, gates, expected is not None)
    failed = sum(not gate.passed for gate in gates)
    grade = f"fails {failed} of" if failed else "passes all"
    grades = f"{grade} {len(gates)} gates" if gates else "is not checked: no gates are set"
    return Verdict(
        passed=not failed,
        headline=f"{model_of(impact.new)} {grades}",
        compared=_compared(impact, expected),
        changes=_changes(impact),
        estimate=_estimated(expected) if expected else "",
        next=step,
        command=command,
        gates=tuple(gates),
    )


def estimate(tables: Tables, comparison: Comparison) -> Extrapolation | None:
    """Estimate the changes in all images of the scope; None unless the results of NEW are exactly those of one run
    with --sample.
    """
    run_id = last_sealed(tables, comparison.impact.new.inference_key)
    run = last_event(tables, run_id) if run_id else None
    if run is None:
        return None
    sampled, population = run["requested"], json.loads(run["metrics"] or "{}").get("population", 0)
    if not sampled < population or comparison.impact.images.new != sampled:
        return None
    return extrapolate(sample_counts(comparison.sql), sampled, population)


def model_of(side: Side) -> str:
    return f"{side.model_name}@{side.model_version}" if side.model_name else "no model"


def _next(views: Views, impact: Impact, gates: list[Gate], is_sample: bool) -> tuple[str, str]:
    """Return the next step and its command."""
    new, view = impact.new, views.current()
    published = NOTHING if view is None else side_of_view(view)
    what = shlex.quote(model_of(new) if new.name in views.names() else new.name)
    if _shows_the_same(new, published):
        return f"{model_of(new)} is already published.", ""
    if published is not NOTHING and not _shows_the_same(impact.old, published):
        return (
            "Gates compare with the published results, and OLD is not published. Compare again:",
            f"resight runs diff {PUBLISHED} {what}",
        )
    failed = {gate.name for gate in gates if not gate.passed}
    if is_sample or "min_coverage_frac" in failed:
        return (
            "Publishing it now would hide images without its results. Run it on them, then compare again:",
            f"resight reprocess --model {model_of(new)}",
        )
    if failed:
        return (
            "Failing gates block the publication. To publish anyway, give a reason, which is recorded:",
            f'resight runs publish {what} --override "REASON"',
        )
    return "Publish it:", f"resight runs publish {what}"


def _shows_the_same(a: Side, b: Side) -> bool:
    same = ("inference_key", "threshold", "label_thresholds")
    return all(getattr(a, field) == getattr(b, field) for field in same)


def _compared(impact: Impact, expected: Extrapolation | None) -> str:
    images, sides = impact.images, f"{_side(impact.old)} with {_side(impact.new)}"
    if expected is not None:
        of = f"a random sample of {expected.sampled} of {expected.population} images"
    elif images.only_old or images.only_new:
        of = f"{images.both} images; {images.only_old} more have a result only in OLD, {images.only_new} only in NEW"
    else:
        of = f"all {images.both} images that have results"
    left_out = images.both - images.compared
    failed = f"; {left_out} of them failed on one side and cannot be compared" if left_out else ""
    return f"{sides}, over {of}{failed}"


def _side(side: Side) -> str:
    model = model_of(side)
    return side.name if side.name in (model, NOTHING.name) else f"{model} ({side.name})"


def _changes(impact: Impact) -> str:
    images, boxes = impact.images, impact.boxes
    if not images.compared:
        return "no image has results on both sides"
    share = 100 * images.changed / images.compared
    return (
        f"{images.changed} of {images.compared} images ({share:.3g} %): in {images.emptied} all detections are gone, "
        f"in {images.filled} the first ones appear; detections {boxes.shown_old} → {boxes.shown_new}: "
        f"{boxes.lost} lost, {boxes.new} new, {boxes.relabelled_from} with another label"
    )


def _estimated(expected: Extrapolation) -> str:
    def words(number: Expected, interval: str = "") -> str:
        return f"{number.expected:.0f} ({interval}{number.low:.0f} to {number.high:.0f})"

    return (
        f"of all {expected.population} images {words(expected.changed_images, '95 % interval: ')} change; in "
        f"{words(expected.emptied_images)} all detections are gone, in {words(expected.filled_images)} the first "
        f"ones appear; detections {words(expected.lost)} lost, {words(expected.new)} new, "
        f"{words(expected.relabelled)} with another label"
    )
