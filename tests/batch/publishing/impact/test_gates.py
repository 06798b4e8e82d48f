"""Gates at their limits, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archive.delta.tables import Tables
from archive.views.views import View
from batch.publishing.impact.measure import Boxes, Images, Impact, Verified
from batch.publishing.impact.verdict import failed, failed_gates, judge
from batch.schedule.policy import Gates
from tests.batch.publishing.impact.scene import NEW, OLD, Seen, World, new_side, old_side

DEER: Seen = ("deer", 0.75, (0.0, 0.0, 40.0, 40.0))
OFF = Gates(
    max_lost_verified=None, max_lost_frac=None, max_emptied_frac=None, max_failed_frac=None, min_coverage_frac=None
)


def impact(**counts: int) -> Impact:
    """All counts are 0 but these."""

    def some(kind: Any, **more: Any) -> Any:
        names = [name for name in kind.model_fields if name not in more]
        return kind(**{name: counts.get(name, 0) for name in names}, **more)

    return Impact(
        old=old_side(),
        new=new_side(),
        match_iou=0.5,
        images=some(Images),
        boxes=some(Boxes, shift=None, lost=counts.get("boxes_lost", 0)),
        labels=(),
        relabelled=(),
        cameras=(),
        verified=some(Verified),
        lost_assertions=(),
    )


@pytest.mark.parametrize(
    ("gate", "limit", "counts", "passes"),
    [
        ("max_lost_verified", 3, {"lost": 3}, True),
        ("max_lost_verified", 3, {"lost": 4}, False),
        ("max_lost_frac", 0.05, {"boxes_lost": 5, "shown_old": 100}, True),
        ("max_lost_frac", 0.05, {"boxes_lost": 6, "shown_old": 100}, False),
        ("max_lost_frac", 0.0, {"boxes_lost": 0, "shown_old": 0}, True),
        ("max_emptied_frac", 0.1, {"emptied": 11, "compared": 100}, False),
        ("max_failed_frac", 0.05, {"new_failed": 5, "new": 100}, True),
        ("max_failed_frac", 0.05, {"new_failed": 6, "new": 100}, False),
        ("min_coverage_frac", 0.99, {"both": 99, "old": 100}, True),
        ("min_coverage_frac", 0.99, {"both": 98, "old": 100}, False),
        ("min_coverage_frac", 1.0, {"both": 0, "old": 0}, True),
    ],
)
def test_a_gate_at_its_limit(gate: str, limit: float, counts: dict[str, int], passes: bool) -> None:
    found = judge(impact(**counts), OFF.model_copy(update={gate: limit}))
    assert [(one.name, one.passed) for one in found] == [(gate, passes)]
    assert (failed(found) == []) is passes


def test_every_gate_of_the_policy_is_judged_and_none_that_is_not_set() -> None:
    every = Gates.model_validate(dict.fromkeys(Gates.model_fields, 0))
    assert [one.name for one in judge(impact(), every)] == list(Gates.model_fields)
    assert judge(impact(), OFF) == []


def test_a_gate_that_fails_says_its_number_and_its_limit() -> None:
    gates = OFF.model_copy(update={"max_failed_frac": 0.05, "max_lost_verified": 0})
    words = failed(judge(impact(new_failed=61, new=1000, lost=2), gates))
    assert words == [
        "2 human assertions are right on the old side and not on the new one; at most 0 (max_lost_verified)",
        "61 of 1000 (6.1 %) images of the new side failed; at most 5 % (max_failed_frac)",
    ]


def view(key: str, **more: Any) -> View:
    return View(inference_key=key, model_name="deer", model_version="1", weights_sha256="w" * 64, **more)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    world = World().image("a", [DEER], [DEER]).image("b", [DEER], []).image("c", [DEER], None)
    return world.say("keep", "b", "deer", DEER[2]).write(Tables(str(tmp_path / "tables")))


def test_gates_of_two_views(tables: Tables) -> None:
    gates = OFF.model_copy(update={"max_lost_verified": 0, "max_failed_frac": 0.5})
    (words,) = failed_gates(tables, view(OLD), view(NEW), gates)
    assert words.startswith("1 human assertion")
    assert failed_gates(tables, view(NEW), view(OLD), gates) == []
    assert failed_gates(tables, view(OLD), view(OLD), Gates(max_lost_frac=0)) == []


def test_thresholds_of_a_view_decide_what_is_lost(tables: Tables) -> None:
    gates = OFF.model_copy(update={"max_lost_frac": 0.5})
    strict = view(OLD, label_thresholds={"deer": 0.8})
    assert len(failed_gates(tables, view(OLD), strict, gates)) == 1


def test_where_nothing_is_published_nothing_can_be_lost(tables: Tables) -> None:
    strictest = Gates.model_validate(dict.fromkeys(Gates.model_fields, 0) | {"min_coverage_frac": 1})
    (words,) = failed_gates(tables, None, view(NEW), strictest)
    assert words.startswith("1 of 3 (33.33 %) images of the new side failed")
