"""Judge a comparison by the gates of the policy, and summarise it as text.

Impact, Gates --judge--> a Gate for each limit that is set. `judge` is pure; `failed_gates` compares first.
Comparison, judged gates --verdict--> Verdict: the first lines of `runs diff` and of its report
`t(text, **values)` makes the texts: English, or those of a visitor of the page (pages/html.py).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from operator import attrgetter

from archive.delta.tables import Tables
from archive.views.publications import last_event, last_sealed
from archive.views.views import View, Views
from batch.publishing.impact.compare import Comparison, compare
from batch.publishing.impact.extrapolate import EstimatedCount, Extrapolation, extrapolate, sample_counts
from batch.publishing.impact.measure import Impact
from batch.publishing.impact.result_sets import NOTHING, PUBLISHED, ResultSet, side_of_view
from batch.schedule.policy import Gates
from model_store.frozen import Frozen
from model_store.transform.thresholds import thresholds_in_words

Translator = Callable[..., str]


class Gate(Frozen):
    """The result of a gate: `name` is the field of the policy; `found` and `limit` are fractions or counts."""

    name: str
    passed: bool
    found: float
    limit: float
    words: str


def judge(impact: Impact, gates: Gates, t: Translator = str.format) -> list[Gate]:
    """Return the result of each gate that is set. A loss of 0 in 0 is 0, a coverage of 0 in 0 is 1."""
    return [_gate(name, impact, float(limit), t) for name in RULES if (limit := getattr(gates, name)) is not None]


def failed(judged: Sequence[Gate]) -> list[str]:
    """Return the explanation of each gate that fails."""
    return [gate.words for gate in judged if not gate.passed]


def failed_gates(tables: Tables, old_view: View | None, new_view: View, gates: Gates) -> list[str]:
    """Return the words of gates that fail for a new view in place of the old one. Raises StorageUnreachable."""
    old = NOTHING if old_view is None else side_of_view(old_view)
    return failed(judge(compare(tables, old, side_of_view(new_view)), gates))


def _gate(name: str, impact: Impact, limit: float, t: Translator) -> Gate:
    part_of, whole_of, words = RULES[name]
    part = int(attrgetter(part_of)(impact))
    if not whole_of:
        text = f"{part} {t(words)}; {t('at most {limit:g}', limit=limit)} ({name})"
        return Gate(name=name, passed=part <= limit, found=float(part), limit=limit, words=text)
    whole, is_minimum = int(attrgetter(whole_of)(impact)), name.startswith("min_")
    found = part / whole if whole else float(is_minimum)
    percent = 100 * limit
    bound = t("at least {n:.4g} %", n=percent) if is_minimum else t("at most {n:.4g} %", n=percent)
    share = t("{part} of {whole} ({percent:.4g} %)", part=part, whole=whole, percent=100 * found)
    text = f"{share} {t(words)}; {bound} ({name})"
    passed = found >= limit if is_minimum else found <= limit
    return Gate(name=name, passed=passed, found=found, limit=limit, words=text)


RULES = {
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


def verdict(tables: Tables, comparison: Comparison, gates: list[Gate], t: Translator = str.format) -> Verdict:
    """Return the summary of a comparison and its gates. Raises StorageUnreachable."""
    impact, expected = comparison.impact, estimate(tables, comparison)
    step, command = _next(Views(tables.url), impact, gates, expected is not None)
    failed, about = sum(not gate.passed for gate in gates), {"model": model_of(impact.new), "n": len(gates)}
    headline = t("{model} passes all {n} gates", **about)
    if failed:
        headline = t("{model} fails {failed} of {n} gates", failed=failed, **about)
    elif not gates:
        headline = t("{model} is not checked: no gates are set", **about)
    return Verdict(
        passed=not failed,
        headline=headline,
        compared=_compared(impact, expected, t),
        changes=_changes(impact, t),
        estimate=_estimated(expected, t) if expected else "",
        next=step,
        command=command,
        gates=tuple(gates),
    )


def estimate(tables: Tables, comparison: Comparison) -> Extrapolation | None:
    """Estimate the changes in the whole scope; None unless NEW has exactly the results of one run with --sample."""
    run_id = last_sealed(tables, comparison.impact.new.inference_key)
    run = last_event(tables, run_id) if run_id else None
    if run is None:
        return None
    sampled, population = run["requested"], json.loads(run["metrics"] or "{}").get("population", 0)
    if not sampled < population or comparison.impact.images.new != sampled:
        return None
    return extrapolate(sample_counts(comparison.sql), sampled, population)


def model_of(side: ResultSet) -> str:
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


def _shows_the_same(a: ResultSet, b: ResultSet) -> bool:
    same = ("inference_key", "threshold", "label_thresholds")
    return all(getattr(a, field) == getattr(b, field) for field in same)


def _compared(impact: Impact, expected: Extrapolation | None, t: Translator) -> str:
    old, new, images = impact.old, impact.new, impact.images
    sides = {"old": _side(old, new, t), "new": _side(new, old, t)}
    if expected is not None:
        text = t(
            "{old} with {new}, over a random sample of {n} of {all} images",
            n=expected.sampled,
            all=expected.population,
            **sides,
        )
    elif images.only_old or images.only_new:
        text = t(
            "{old} with {new}, over {n} images; {only_old} more have a result only in OLD, {only_new} only in NEW",
            n=images.both,
            only_old=images.only_old,
            only_new=images.only_new,
            **sides,
        )
    else:
        text = t("{old} with {new}, over all {n} images that have results", n=images.both, **sides)
    left_out = images.both - images.compared
    return text + (t("; {n} of them failed on one side and cannot be compared", n=left_out) if left_out else "")


def _side(side: ResultSet, other: ResultSet, t: Translator) -> str:
    """Return the model of a side, its name in the request, and its thresholds if those of the other side differ."""
    if side.name == NOTHING.name:
        return side.name
    model, ours, theirs = model_of(side), *(thresholds_in_words(s.threshold, s.label_thresholds) for s in (side, other))
    about = [side.name] if side.name != model else []
    if ours != theirs and other.name != NOTHING.name:
        about.append(t("shown from {threshold}", threshold=ours))
    return f"{model} ({', '.join(about)})" if about else model


def _changes(impact: Impact, t: Translator) -> str:
    images, boxes = impact.images, impact.boxes
    if not images.compared:
        return t("no image has results on both sides")
    return t(
        "{changed} of {compared} images ({share:.3g} %): in {emptied} all detections are gone, in {filled} the first "
        "ones appear; detections {before} → {after}: {lost} lost, {new} new, {relabelled} with another label",
        changed=images.changed,
        compared=images.compared,
        share=100 * images.changed / images.compared,
        emptied=images.emptied,
        filled=images.filled,
        before=boxes.shown_old,
        after=boxes.shown_new,
        lost=boxes.lost,
        new=boxes.new,
        relabelled=boxes.relabelled_from,
    )


def _estimated(expected: Extrapolation, t: Translator) -> str:
    def words(number: EstimatedCount, of: str = "") -> str:
        n, low, high = (round(each) for each in (number.expected, number.low, number.high))
        return f"{n} ({of and t('95 % interval: ')}{t('{low} to {high}', low=low, high=high)})"

    return t(
        "of all {all} images {changed} change; in {emptied} all detections are gone, in {filled} the "
        "first ones appear; detections {lost} lost, {new} new, {relabelled} with another label",
        all=expected.population,
        changed=words(expected.changed_images, "95 % interval: "),
        emptied=words(expected.emptied_images),
        filled=words(expected.filled_images),
        lost=words(expected.lost),
        new=words(expected.new),
        relabelled=words(expected.relabelled),
    )
