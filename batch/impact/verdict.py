"""The verdict on a comparison, in plain words: what was compared, what would change, which gates pass, what to do next.

Comparison, judged gates --verdict--> Verdict: the first lines of `runs diff` and of its report
"""

from __future__ import annotations

import json
import shlex

from archive.publications import last_event, last_sealed
from archive.tables import Tables
from archive.views import Views
from batch.impact.compare import Comparison
from batch.impact.expect import Expected, Extrapolation, extrapolate, sample_counts
from batch.impact.facts import Impact
from batch.impact.gates import Gate
from batch.impact.sides import NOTHING, PUBLISHED, Side, side_of_view
from model_store.config import Frozen


class Verdict(Frozen):
    """`estimate` is "" unless NEW has only seen a sample; `next` is a sentence, `command` what to type, or ""."""

    passed: bool
    headline: str
    compared: str
    changes: str
    estimate: str
    next: str
    command: str
    gates: tuple[Gate, ...]


def verdict(tables: Tables, comparison: Comparison, gates: list[Gate]) -> Verdict:
    """Raises StorageUnreachable."""
    impact, expected = comparison.impact, estimate(tables, comparison)
    step, command = _next(Views(tables.url), impact, gates, expected is not None)
    failed = sum(not gate.passed for gate in gates)
    grade = f"fails {failed} of" if failed else "passes all"
    grades = f"{grade} {len(gates)} gates" if gates else "is judged by no gate: none is set"
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
    """Estimate the changes in all images of the scope. None unless the results of NEW are those of one run with
    --sample, all of them and no others.
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
    """Return what to do, and the command for it."""
    new, view = impact.new, views.current()
    published = NOTHING if view is None else side_of_view(view)
    what = shlex.quote(model_of(new) if new.name in views.names() else new.name)
    if _shows_the_same(new, published):
        return f"{model_of(new)} is published already.", ""
    if published is not NOTHING and not _shows_the_same(impact.old, published):
        return (
            "Gates are about what is published, and OLD is something else. Compare again:",
            f"resight runs diff {PUBLISHED} {what}",
        )
    failed = {gate.name for gate in gates if not gate.passed}
    if is_sample or "min_coverage_frac" in failed:
        return (
            "Publishing it now would hide the images that it has not seen. Let it see them, then compare again:",
            f"resight reprocess --model {model_of(new)}",
        )
    if failed:
        return (
            "Gates that fail refuse the publication. Only with a reason, which is recorded:",
            f'resight runs publish {what} --override "REASON"',
        )
    return "Show it to everybody:", f"resight runs publish {what}"


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
        return "no image has results on both sides, so nothing can be said"
    share = 100 * images.changed / images.compared
    return (
        f"{images.changed} of {images.compared} images ({share:.3g} %): in {images.emptied} all detections are gone, "
        f"in {images.filled} the first ones appear; detections {boxes.shown_old} → {boxes.shown_new}: "
        f"{boxes.lost} lost, {boxes.new} new, {boxes.relabelled_from} with another label"
    )


def _estimated(expected: Extrapolation) -> str:
    def words(one: Expected, interval: str = "") -> str:
        return f"{one.expected:.0f} ({interval}{one.low:.0f} to {one.high:.0f})"

    return (
        f"of all {expected.population} images {words(expected.changed_images, '95 % interval: ')} change; in "
        f"{words(expected.emptied_images)} all detections are gone, in {words(expected.filled_images)} the first "
        f"ones appear; detections {words(expected.lost)} lost, {words(expected.new)} new, "
        f"{words(expected.relabelled)} with another label"
    )
