"""Test decisions at the values where they change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.views.views import View
from batch.schedule.decide import DecisionFacts, WantedVersion, decide, threshold_delta
from batch.schedule.policy import DueConditions, Policy, Weekly
from model_store.config import Thresholds

SUNDAY = datetime(2026, 5, 17, 3, 0)
"""A time in the default window."""
MONDAY = datetime(2026, 5, 18, 3, 0)
NEXT = datetime(2026, 5, 24, 2, 0)
OFF = Policy(due=DueConditions(weekly=None))
LATER = Policy(due=DueConditions(new_model=False, numerics=False))


def view(key: str = "k", default: float = 0.25, **more: Any) -> View:
    named = {"model_name": "deer", "model_version": "1", "weights_sha256": "w" * 64}
    return View(serial=1, inference_key=key, threshold=default, **{**named, **more})


def facts(key: str = "k", default: float = 0.25, **more: Any) -> DecisionFacts:
    """Return facts: all images have a result of the published key, with its thresholds."""
    wanted = WantedVersion(
        name="deer",
        version="2",
        inference_key=key,
        numerics=2,
        thresholds=Thresholds(default=default, per_label=more.pop("labels", {})),
    )
    return DecisionFacts(**{"wanted": wanted, "published": view(), "images": 50_000, "new_images": 0, **more})


NEW_MODEL = {"key": "other", "new_images": 50_000}
NEW_CODE = {**NEW_MODEL, "published_numerics": 1}
RETRY = {"retryable": 7, "retry_since": datetime(2026, 5, 13)}


@pytest.mark.parametrize(
    ("found", "policy", "now", "action", "publish", "words"),
    [
        # nothing to do
        ({}, Policy(), MONDAY, "nothing", False, "nothing is due: all 50,000 images"),
        ({"images": 0}, Policy(), SUNDAY, "nothing", False, "no image is catalogued"),
        ({"running": "r1", **NEW_MODEL}, Policy(), SUNDAY, "nothing", False, "run r1 of this"),
        # nothing published
        (
            {"published": None, "new_images": 9},
            Policy(),
            MONDAY,
            "full",
            True,
            "nothing is published yet; 9 of 50,000 images have no result",
        ),
        ({"published": None}, Policy(), MONDAY, "view", True, "all 50,000 images have"),
        # another model
        (NEW_MODEL, Policy(), MONDAY, "full", True, "deer@2 differs from the published model deer@1 (due"),
        ({"key": "other"}, Policy(), MONDAY, "view", True, "due.new_model"),
        (NEW_MODEL, LATER, MONDAY, "wait", False, "due.new_model = false"),
        (NEW_MODEL, LATER, SUNDAY, "full", True, "in the weekly window (due.weekly: sun 02:00, 6 h)"),
        (NEW_CODE, Policy(), MONDAY, "full", True, "numerics version 2 replaces 1 (due.numerics = true)"),
        (NEW_CODE, Policy(due=DueConditions(new_model=False)), MONDAY, "full", True, "due.numerics"),
        (NEW_CODE, Policy(due=DueConditions(numerics=False)), MONDAY, "wait", False, "due.numerics = false"),
        (NEW_MODEL, Policy(due=DueConditions(numerics=False)), MONDAY, "full", True, "due.new_model"),
        # thresholds
        ({"default": 0.30}, Policy(), MONDAY, "wait", False, "moved by 0.05, not more than due.threshold_delta = 0.05"),
        ({"default": 0.301}, Policy(), MONDAY, "view", True, "moved by 0.051, more than due.threshold_delta = 0.05"),
        ({"default": 0.30}, Policy(), SUNDAY, "view", True, "needs no inference: in the weekly window"),
        ({"default": 0.30}, OFF, MONDAY, "view", True, 'due.weekly = "off", so it is due at once'),
        ({"default": 0.30}, Policy(due=DueConditions(threshold_delta=0)), MONDAY, "view", True, "threshold_delta = 0;"),
        ({"labels": {"fox": 0.9}}, Policy(), MONDAY, "view", True, "the threshold of 'fox' moved by 0.65"),
        ({"labels": {"fox": 0.25}}, Policy(), MONDAY, "nothing", False, "nothing is due"),
        # new images
        ({"new_images": 1}, Policy(), MONDAY, "incremental", False, "1 of 50,000 images are new, fewer than due.incr"),
        ({"new_images": 999}, Policy(), SUNDAY, "incremental", False, "999 of"),
        ({"new_images": 1_000}, Policy(), MONDAY, "wait", False, "1,000 to due.import_over = 10,000"),
        ({"new_images": 10_000}, Policy(), MONDAY, "wait", False, "10,000 of"),
        ({"new_images": 10_001}, Policy(), MONDAY, "full", False, "more than due.import_over = 10,000"),
        ({"new_images": 1_000}, Policy(), SUNDAY, "full", False, "weekly window"),
        ({"new_images": 1}, Policy(due=DueConditions(import_over=0)), MONDAY, "full", False, "due.import_over = 0"),
        ({"new_images": 1}, Policy(due={"incremental_under": 0}), MONDAY, "wait", False, "under = 0"),
        # failures that may succeed now
        (RETRY, Policy(), MONDAY, "wait", False, "7 of 50,000 images failed for causes that may be resolved"),
        (RETRY, Policy(), SUNDAY, "full", False, "weekly window"),
        (RETRY | {"retry_since": SUNDAY - timedelta(minutes=60)}, Policy(), SUNDAY, "nothing", False, ""),
        (RETRY | {"retry_since": SUNDAY - timedelta(minutes=61)}, Policy(), SUNDAY, "full", False, ""),
        (RETRY | {"retry_since": MONDAY - timedelta(days=7)}, OFF, MONDAY, "nothing", False, ""),
        (RETRY | {"retry_since": MONDAY - timedelta(days=7, seconds=1)}, OFF, MONDAY, "full", False, ""),
        (RETRY | {"new_images": 5}, Policy(), SUNDAY, "full", False, "5 of"),
        # several at once
        ({"default": 0.5, "new_images": 5}, Policy(), MONDAY, "incremental", True, "0.25"),
        ({"default": 0.27, "new_images": 5}, Policy(), MONDAY, "incremental", False, "waits for the weekly"),
        ({"default": 0.27, "new_images": 5_000}, Policy(), SUNDAY, "full", True, "0.02"),
        # rolled back: not published again automatically
        ({"taken_back": True, **NEW_MODEL}, Policy(), SUNDAY, "nothing", False, "move the alias back to deer@1"),
        ({"taken_back": True, "default": 0.9}, Policy(), SUNDAY, "nothing", False, "rolled back"),
        ({"taken_back": True, "new_images": 5}, Policy(), MONDAY, "incremental", False, "5 of"),
    ],
)  # fmt: skip
def test_the_table(
    found: dict[str, Any], policy: Policy, now: datetime, action: str, publish: bool, words: str
) -> None:
    decision = decide(facts(**found), policy, now)
    assert (decision.action, decision.publish) == (action, publish), decision.reasons
    assert words in " | ".join(decision.reasons)
    assert decision.reasons
    assert all(decision.reasons)


@pytest.mark.parametrize(
    ("now", "action", "until"),
    [
        (datetime(2026, 5, 17, 1, 59, 59, 999999), "wait", datetime(2026, 5, 17, 2)),
        (datetime(2026, 5, 17, 2), "full", None),
        (datetime(2026, 5, 17, 7, 59, 59, 999999), "full", None),
        (datetime(2026, 5, 17, 8), "wait", NEXT),
        (MONDAY, "wait", NEXT),
    ],
)
def test_what_waits_is_done_in_the_window_and_says_when_it_opens(
    now: datetime, action: str, until: datetime | None
) -> None:
    decision = decide(facts(new_images=5_000), Policy(), now)
    assert (decision.action, decision.until) == (action, until)


def test_what_waits_is_named_beside_what_is_done() -> None:
    decision = decide(facts(default=0.27, new_images=5), Policy(), MONDAY)
    assert (decision.action, decision.until) == ("incremental", NEXT)
    assert len(decision.reasons) == 2


def test_a_time_with_a_zone_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        decide(facts(), Policy(), datetime.now(UTC))


def test_the_largest_move_of_a_label_counts() -> None:
    old = Thresholds(default=0.2, per_label={"default": 0.5, "fox": 0.3})
    new = Thresholds(default=0.3, per_label={"default": 0.5, "cat": 0.9})
    assert threshold_delta(old, new) == (0.7, "cat")
    assert threshold_delta(old, old)[0] == 0
    assert threshold_delta(Thresholds(default=0.25), Thresholds(default=0.3)) == (0.05, None), "not 0.0499…"


FACTS = st.builds(
    facts,
    key=st.sampled_from(["k", "other"]),
    default=st.sampled_from([0.25, 0.3, 0.9]),
    published=st.sampled_from([None, view()]),
    published_numerics=st.sampled_from([None, 1]),
    taken_back=st.booleans(),
    new_images=st.sampled_from([0, 1, 1_000, 10_000, 10_001, 50_000]),
    retryable=st.sampled_from([0, 3]),
    retry_since=st.none() | st.datetimes(datetime(2026, 1, 1), datetime(2026, 6, 1)),
    running=st.sampled_from([None, "r"]),
)
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1))
WEEKLY = st.builds(Weekly, start=st.times(timezones=st.none()), hours=st.sampled_from([1, 24, 168]))
POLICIES = st.builds(
    lambda weekly, **due: Policy(
        due=DueConditions(weekly=weekly, **(due if weekly else {**due, "new_model": True, "numerics": True}))
    ),
    weekly=st.none() | WEEKLY,
    new_model=st.booleans(),
    numerics=st.booleans(),
)


@given(FACTS, POLICIES, MOMENTS)
def test_nothing_waits_in_the_window_or_without_one(found: DecisionFacts, policy: Policy, now: datetime) -> None:
    decision, weekly = decide(found, policy, now), policy.due.weekly
    assert decision.reasons
    if weekly is None or weekly.is_open(now):
        assert decision.action != "wait"
        assert decision.until is None
    if decision.action == "wait":
        assert weekly is not None
        assert decision.until == weekly.opens_next(now)
        opened = decide(found, policy, decision.until)
        assert opened.action in ("full", "view")
    if decision.action == "incremental":
        assert 0 < found.new_images < policy.due.incremental_under
    if decision.action == "view":
        assert decision.publish


@given(FACTS, POLICIES, MOMENTS)
def test_after_what_was_decided_nothing_more_is_due(found: DecisionFacts, policy: Policy, now: datetime) -> None:
    """Apply the decision: a run gives every image a result, and a publication publishes the wanted model."""
    for _ in range(3):
        decision = decide(found, policy, now)
        if decision.action in ("nothing", "wait"):
            return
        done: dict[str, Any] = {}
        if decision.scope:
            done = {"new_images": 0}
            if decision.action == "full":
                done |= {"retryable": 0}
        if decision.publish:
            wanted = found.wanted
            shown = {"default": wanted.thresholds.default, "key": wanted.inference_key}
            done |= {"published": view(**shown), "published_numerics": 2}
        found = found.model_copy(update=done)
    raise AssertionError(f"never at rest: {decision}")
