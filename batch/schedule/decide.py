"""Decide from facts and the team's policy whether a reprocess is due, with reasons. Pure.

(DecisionFacts, Policy, local time) -> Decision(action, reasons, until, publish)
Each finding is due at once or waits for the weekly window; of those due, the largest action is taken.
docs/reference/policy.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from pydantic import Field

from archive.views.views import View
from batch.runs.scope import Scope
from batch.schedule.policy import WEEK, DueConditions, Policy, Weekly
from model_store.config import Thresholds
from model_store.frozen import Frozen

Action = Literal["nothing", "wait", "view", "incremental", "full"]
_BY_SIZE: tuple[Action, ...] = get_args(Action)

_NOT_ENDED = "was started and has not ended (after 5 minutes without an event it counts as ended)"


class WantedVersion(Frozen):
    """The model version that the archive should have results of."""

    name: str
    version: str
    inference_key: str
    numerics: int
    thresholds: Thresholds = Thresholds()

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class DecisionFacts(Frozen):
    """State of the tables. Images are unique contents that are present; results are those of the wanted key.

    `published_numerics`: the numerics version with which the wanted model has the published key; None if it is
    another model's key. `taken_back`: the wanted key or thresholds were rolled back (`archive/views/views.py`).
    `retryable`: failures that may succeed with the same image (`TRIED_AGAIN`). `retry_since`: when the first of them
    was last tried, in local time. `running`: a run of this key that has not ended.
    """

    wanted: WantedVersion
    published: View | None = None
    published_numerics: int | None = None
    taken_back: bool = False
    images: int
    new_images: int
    results: dict[str, int] = Field(default_factory=dict)
    retryable: int = 0
    retry_since: datetime | None = None
    running: str | None = None

    @property
    def other_key(self) -> bool:
        return self.published is not None and self.published.inference_key != self.wanted.inference_key


@dataclass(frozen=True)
class Decision:
    """An action with its reasons. `until`: when the weekly window opens for what waits; `publish`: publish the view,
    after the run if there is one.
    """

    action: Action
    reasons: tuple[str, ...]
    until: datetime | None = None
    publish: bool = False

    @property
    def scope(self) -> Scope | None:
        """Return the scope of the run to start, or None without a run."""
        if self.action == "full":
            return Scope()
        return Scope(status="missing") if self.action == "incremental" else None


@dataclass(frozen=True)
class _Finding:
    """Something to do, at once or in the weekly window."""

    action: Action
    at_once: bool
    why: str
    publish: bool = False


def decide(facts: DecisionFacts, policy: Policy, now: datetime) -> Decision:
    """Return the decision. `now` is local time without a zone. Nothing waits in the weekly window or without one."""
    if now.tzinfo is not None:
        raise ValueError(f"the time must be local, without a zone, not {now}")
    if not facts.images:
        return Decision("nothing", ("no image is catalogued: run 'resight ingest URL'",))
    if facts.running:
        return Decision("nothing", (f"run {facts.running} of this inference key {_NOT_ENDED}",))
    weekly = policy.due.weekly
    opened = weekly is None or weekly.is_open(now)
    findings = [*_publication(facts, policy.due), *_images(facts, policy.due)]
    findings += _failures(facts, weekly, now)
    due = [finding for finding in findings if finding.at_once or opened]
    waiting = [finding for finding in findings if not finding.at_once and not opened]
    window = _window(weekly)
    in_window = f": in {window}" if weekly else ': due.weekly = "off", so it is due at once'
    reasons = [finding.why + ("" if finding.at_once else in_window) for finding in due]
    reasons += [f"{finding.why}: waits for {window}" for finding in waiting]
    idle: Action = "wait" if waiting else "nothing"
    return Decision(
        action=_BY_SIZE[max((_BY_SIZE.index(finding.action) for finding in due), default=_BY_SIZE.index(idle))],
        reasons=tuple(reasons) or (_nothing(facts),),
        until=weekly.opens_next(now) if weekly and waiting else None,
        publish=any(finding.publish for finding in due),
    )


def threshold_delta(shown: Thresholds, wanted: Thresholds) -> tuple[float, str | None]:
    """Return the largest change of a label's threshold, and that label; None for labels without their own threshold.

    Rounded to 1e-9, so that 0.55 is 0.05 more than 0.5.
    """
    moved: dict[str | None, float] = {None: abs(wanted.default - shown.default)}
    for label in sorted(shown.per_label.keys() | wanted.per_label.keys()):
        old, new = (side.per_label.get(label, side.default) for side in (shown, wanted))
        moved[label] = abs(new - old)
    furthest = max(moved, key=moved.__getitem__)
    return round(moved[furthest], 9), furthest


def shown_by(view: View) -> Thresholds:
    return Thresholds(default=view.threshold, per_label=view.label_thresholds)


def _publication(facts: DecisionFacts, due: DueConditions) -> Iterator[_Finding]:
    """Yield what requires another view, with a run first if results are missing."""
    wanted, view = facts.wanted, facts.published
    todo: Action = "full" if facts.new_images else "view"
    if view is None:
        yield _Finding(todo, True, f"nothing is published yet; {_coverage(facts)}", publish=True)
    elif facts.taken_back:
        return
    elif facts.other_key and facts.published_numerics is not None:
        why = (
            f"numerics version {wanted.numerics} replaces {facts.published_numerics} "
            f"(due.numerics = {_toml(due.numerics)}); {_coverage(facts)}"
        )
        yield _Finding(todo, due.numerics, why, publish=True)
    elif facts.other_key:
        why = (
            f"{wanted} differs from the published model {view.model_name}@{view.model_version} "
            f"(due.new_model = {_toml(due.new_model)}); {_coverage(facts)}"
        )
        yield _Finding(todo, due.new_model, why, publish=True)
    else:
        delta, label = threshold_delta(shown_by(view), wanted.thresholds)
        subject = "default threshold" if label is None else f"threshold of '{label}'"
        more = delta > due.threshold_delta
        why = (
            f"the {subject} moved by {delta:g}, {'more' if more else 'not more'} than "
            f"due.threshold_delta = {due.threshold_delta:g}; publishing again needs no inference"
        )
        if delta:
            yield _Finding("view", more, why, publish=True)


def _images(facts: DecisionFacts, due: DueConditions) -> Iterator[_Finding]:
    """Yield what new images require if the wanted key is published; else the new model's run includes them."""
    n = facts.new_images
    if facts.published is None or facts.other_key or not n:
        return
    new = f"{n:,} of {facts.images:,} images are new"
    if n > due.import_over:
        yield _Finding("full", True, f"{new}, more than due.import_over = {due.import_over:,}")
    elif n < due.incremental_under:
        why = f"{new}, fewer than due.incremental_under = {due.incremental_under:,}: only these are due"
        yield _Finding("incremental", True, why)
    else:
        why = f"{new}, from due.incremental_under = {due.incremental_under:,} to due.import_over = {due.import_over:,}"
        yield _Finding("full", False, why)


def _failures(facts: DecisionFacts, weekly: Weekly | None, now: datetime) -> Iterator[_Finding]:
    """Yield failures that may succeed now, once per window, or once a week without a window."""
    if not facts.retryable or (facts.other_key and facts.taken_back):
        return
    window_is_open = weekly is not None and weekly.is_open(now)
    this_week = weekly.opened(now) if weekly and window_is_open else now - WEEK
    tried_since = facts.retry_since is not None and facts.retry_since >= this_week
    if tried_since and (weekly is None or window_is_open):
        return
    why = f"{facts.retryable:,} of {facts.images:,} images failed for causes that may be resolved"
    yield _Finding("full", False, why)


def _nothing(facts: DecisionFacts) -> str:
    if facts.taken_back and facts.published:
        now = facts.published
        way = f"move the alias back to {now.model_name}@{now.model_version}, or publish by hand"
        if facts.other_key:
            return f"{facts.wanted} was rolled back and is not published automatically again: {way}"
        what = f"the thresholds of {facts.wanted} were rolled back"
        return f"{what} and are not published automatically again: publish by hand"
    return f"nothing is due: {_coverage(facts)}, and it is published"


def _coverage(facts: DecisionFacts) -> str:
    if facts.new_images:
        return f"{facts.new_images:,} of {facts.images:,} images have no result of this model"
    return f"all {facts.images:,} images have their result"


def _window(weekly: Weekly | None) -> str:
    if weekly is None:
        return ""
    return f"the weekly window (due.weekly: {weekly.day} {weekly.start:%H:%M}, {weekly.hours:g} h)"


def _toml(value: bool) -> str:
    return str(value).lower()
