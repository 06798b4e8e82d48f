"""Whether a reprocess is due: one decision, with its reasons, out of facts and the team's policy. Pure.

(Facts, Policy, local time) -> Decision(action, reasons, until, publish)
What is found is due at once, or waits for the weekly window; of all that is due the largest action is taken.
docs/policy.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import Field

from archive.views import View
from batch.policy import WEEK, Due, Policy, Weekly
from batch.scope import Scope
from model_store.config import Frozen, Thresholds

Action = Literal["nothing", "wait", "view", "incremental", "full"]
_BY_SIZE: tuple[Action, ...] = ("nothing", "wait", "view", "incremental", "full")

_UNDER_WAY = "was started and has not ended (after 5 minutes without an event it counts as ended)"


class Wanted(Frozen):
    """The model version that the archive shall be seen with."""

    name: str
    version: str
    inference_key: str
    numerics: int
    thresholds: Thresholds = Thresholds()

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Facts(Frozen):
    """What the tables say. Images are unique contents that are there; results are those of the wanted key.

    `published_numerics` is the numerics version by which the wanted model has the published key, None when it
    is another model's. `taken_back`: what is wanted was rolled back (`archive/views.py`). `retryable` of the
    failed may succeed without another image (`TRIED_AGAIN`); `retry_since` is when the first of them was tried
    last, by the local clock. `running` is a run of this key that is under way.
    """

    wanted: Wanted
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
        return (
            self.published is not None and self.published.inference_key != self.wanted.inference_key
        )


@dataclass(frozen=True)
class Decision:
    """`until`: when the weekly window opens for what waits; `publish`: the view shall be moved, after the run if
    there is one.
    """

    action: Action
    reasons: tuple[str, ...]
    until: datetime | None = None
    publish: bool = False

    @property
    def scope(self) -> Scope | None:
        """Of the run that it takes, or None."""
        if self.action == "full":
            return Scope()
        return Scope(status="missing") if self.action == "incremental" else None


@dataclass(frozen=True)
class _Found:
    """Something to be done, and whether at once."""

    action: Action
    at_once: bool
    why: str
    publish: bool = False


def decide(facts: Facts, policy: Policy, now: datetime) -> Decision:
    """`now` is local time without a zone. In the weekly window, and without one, nothing waits."""
    if now.tzinfo is not None:
        raise ValueError(f"the weekly window is local time without a zone, not {now}")
    if not facts.images:
        return Decision("nothing", ("no image is catalogued: 'resight ingest URL'",))
    if facts.running:
        return Decision("nothing", (f"run {facts.running} of this inference key {_UNDER_WAY}",))
    weekly = policy.due.weekly
    opened = weekly is None or weekly.is_open(now)
    found = [*_publication(facts, policy.due), *_images(facts, policy.due)]
    found += _failures(facts, weekly, now)
    due = [one for one in found if one.at_once or opened]
    waiting = [one for one in found if not one.at_once and not opened]
    reasons = [one.why + _at_once(one, weekly) for one in due]
    reasons += [f"{one.why}: waits for {_window(weekly)}" for one in waiting]
    idle: Action = "wait" if waiting else "nothing"
    return Decision(
        action=_BY_SIZE[
            max((_BY_SIZE.index(one.action) for one in due), default=_BY_SIZE.index(idle))
        ],
        reasons=tuple(reasons) or (_nothing(facts),),
        until=weekly.opens_next(now) if weekly and waiting else None,
        publish=any(one.publish for one in due),
    )


def threshold_delta(shown: Thresholds, wanted: Thresholds) -> tuple[float, str | None]:
    """How far the threshold of a label moved, at most, and that label; None: those without an own one.

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


def _publication(facts: Facts, due: Due) -> Iterator[_Found]:
    """What makes another view due, and first a run where results lack."""
    wanted, view = facts.wanted, facts.published
    todo: Action = "full" if facts.new_images else "view"
    if view is None:
        yield _Found(todo, True, f"nothing is published yet; {_coverage(facts)}", publish=True)
    elif facts.taken_back:
        return
    elif facts.other_key and facts.published_numerics is not None:
        why = (
            f"numerics version {wanted.numerics} has taken the place of {facts.published_numerics} "
            f"(due.numerics = {_toml(due.numerics)}); {_coverage(facts)}"
        )
        yield _Found(todo, due.numerics, why, publish=True)
    elif facts.other_key:
        why = (
            f"{wanted} is another model than the published {view.model_name}@{view.model_version} "
            f"(due.new_model = {_toml(due.new_model)}); {_coverage(facts)}"
        )
        yield _Found(todo, due.new_model, why, publish=True)
    else:
        yield from _thresholds(shown_by(view), wanted.thresholds, due)


def _thresholds(shown: Thresholds, wanted: Thresholds, due: Due) -> Iterator[_Found]:
    delta, label = threshold_delta(shown, wanted)
    if not delta:
        return
    whose = "default threshold" if label is None else f"threshold of '{label}'"
    more = delta > due.threshold_delta
    why = (
        f"the {whose} moved by {delta:g}, {'more' if more else 'not more'} than "
        f"due.threshold_delta = {due.threshold_delta:g}; to publish again takes no inference"
    )
    yield _Found("view", more, why, publish=True)


def _images(facts: Facts, due: Due) -> Iterator[_Found]:
    """New images, where the key is the published one: else they are part of the new model's run."""
    n = facts.new_images
    if facts.published is None or facts.other_key or not n:
        return
    new = f"{n:,} of {facts.images:,} images are new"
    if n > due.import_over:
        yield _Found("full", True, f"{new}, more than due.import_over = {due.import_over:,}")
    elif n < due.incremental_under:
        why = f"{new}, fewer than due.incremental_under = {due.incremental_under:,}: they alone"
        yield _Found("incremental", True, why)
    else:
        why = (
            f"{new}, not fewer than due.incremental_under = {due.incremental_under:,} and not more than "
            f"due.import_over = {due.import_over:,}"
        )
        yield _Found("full", False, why)


def _failures(facts: Facts, weekly: Weekly | None, now: datetime) -> Iterator[_Found]:
    """Those that may succeed now, once a window: or once a week where there is no window."""
    if not facts.retryable or (facts.other_key and facts.taken_back):
        return
    window_is_open = weekly is not None and weekly.is_open(now)
    this_week = weekly.opened(now) if weekly and window_is_open else now - WEEK
    tried_since = facts.retry_since is not None and facts.retry_since >= this_week
    if tried_since and (weekly is None or window_is_open):
        return
    why = f"{facts.retryable:,} of {facts.images:,} images failed for what may be over"
    yield _Found("full", False, why)


def _nothing(facts: Facts) -> str:
    if facts.taken_back and facts.published:
        now = facts.published
        if not facts.other_key:
            return f"the thresholds of {facts.wanted} were rolled back: not again by itself. Publish by hand"
        return (
            f"{facts.wanted} was published and rolled back: not again by itself. Move the alias back to "
            f"{now.model_name}@{now.model_version}, or publish by hand"
        )
    return f"nothing is due: {_coverage(facts)}, and it is published"


def _coverage(facts: Facts) -> str:
    if facts.new_images:
        return f"{facts.new_images:,} of {facts.images:,} images have no result of it"
    return f"all {facts.images:,} images have their result"


def _at_once(found: _Found, weekly: Weekly | None) -> str:
    if found.at_once:
        return ""
    return f": in {_window(weekly)}" if weekly else ': due.weekly = "off", so it is due at once'


def _window(weekly: Weekly | None) -> str:
    assert weekly is not None
    return f"the weekly window (due.weekly: {weekly.day} {weekly.start:%H:%M}, {weekly.hours:g} h)"


def _toml(value: bool) -> str:
    return str(value).lower()
