"""Matching and counting, against a slow count of random worlds and at the edges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batch.publishing.impact.compare
from batch.publishing.impact.compare import compare
from batch.publishing.impact.measure import Impact
from tests.batch.publishing.impact import oracle
from tests.batch.publishing.impact.scene import Seen, World, new_side, old_side

LABELS = ("deer", "fox", "boar")
corner = st.integers(0, 5)
score = st.integers(0, 8).map(lambda n: n / 8)


@st.composite
def anywhere(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x1, y1 = draw(corner), draw(corner)
    width, height = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    return float(x1), float(y1), float(x1 + width), float(y1 + height)


def alike(width: int, height: int) -> tuple[float, float, float, float]:
    """Most pairs of these match, many at the same IoU or at exactly 0.5."""
    return 0.0, 0.0, float(width), float(height)


box = st.one_of(anywhere(), st.builds(alike, st.integers(3, 6), st.integers(3, 6)))
seen = st.tuples(st.sampled_from(LABELS), score, box)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Images that a side lacks, that failed, that lie twice, or that are gone."""
    world = World()
    side = st.one_of(st.none(), st.lists(seen, max_size=6), st.lists(seen, max_size=6))
    camera = st.sampled_from(["c1", "c2", None])
    for number in range(draw(st.integers(0, 12))):
        name = str(number)
        world.files[name] = draw(st.lists(st.tuples(camera, st.sampled_from([True, True, False])), max_size=3))
        if draw(st.integers(0, 9)):
            world.old[name] = draw(side)
        if draw(st.integers(0, 9)):
            world.new[name] = draw(side)
    return world


thresholds = st.fixed_dictionaries({"": score, "deer": score})


def counted(impact: Impact) -> dict[str, Any]:
    facts = impact.model_dump()
    return {
        "images": facts["images"],
        "boxes": facts["boxes"],
        "labels": {row.pop("label"): row for row in facts["labels"]},
        "cameras": {row.pop("camera_id"): row for row in facts["cameras"]},
        "relabelled": {(row["old_label"], row["new_label"]): row["boxes"] for row in facts["relabelled"]},
    }


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(world=worlds(), old=thresholds, new=thresholds, at_once=st.sampled_from([1, 3, 10**6]))
def test_a_slow_count_finds_the_same(world: World, old: dict[str, float], new: dict[str, float], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch.publishing.impact.compare, "MOST_AT_ONCE", at_once)
        tables = world.in_memory(patch)
        impact = compare(tables, old_side(old[""], deer=old["deer"]), new_side(new[""], deer=new["deer"]))
    found, wanted = counted(impact), oracle.impact(world, old, new)
    assert found["images"] == {name: wanted["images"][name] for name in found["images"]}
    for part in ("boxes", "labels", "cameras", "relabelled"):
        assert found[part] == wanted[part], part


BOX = (0.0, 0.0, 4.0, 4.0)
HALF = (0.0, 0.0, 4.0, 2.0)  # IoU with BOX is exactly 0.5
LESS = (0.0, 0.0, 4.0, 1.984375)


Kinds = tuple[int, int, int, int]


def kinds(patch: pytest.MonkeyPatch, cases: list[tuple[list[Seen], list[Seen]]], threshold: float = 0) -> list[Kinds]:
    """Return matched, lost, new and relabelled boxes of each case, an image of a camera of its own."""
    world = World()
    for number, (old, new) in enumerate(cases):
        world.image(str(number), old, new, [f"{number:03d}"])
    cameras = compare(world.in_memory(patch), old_side(), new_side(threshold)).cameras
    return [(row.matched, row.lost, row.new, row.relabelled_from) for row in cameras]


EDGES: list[tuple[list[Seen], list[Seen], Kinds]] = [
    ([("deer", 0.5, BOX)], [], (0, 1, 0, 0)),
    ([], [("deer", 0.5, BOX)], (0, 0, 1, 0)),
    ([("deer", 0.5, BOX)], [("deer", 0.5, HALF)], (1, 0, 0, 0)),
    ([("deer", 0.5, BOX)], [("deer", 0.5, LESS)], (0, 1, 1, 0)),
    ([("deer", 0.5, BOX)], [("fox", 0.5, HALF)], (0, 0, 0, 1)),
    ([("deer", 0.5, (1, 1, 1, 1))], [("deer", 0.5, (1, 1, 1, 1))], (0, 1, 1, 0)),
    ([("deer", 0.5, BOX)] * 3, [("deer", 0.5, BOX)] * 2, (2, 1, 0, 0)),
    # the same label comes first, though the other overlaps better
    ([("deer", 0.5, BOX)], [("fox", 0.9, BOX), ("deer", 0.5, HALF)], (1, 0, 1, 0)),
    # and what is left is matched across labels
    ([("deer", 0.9, BOX), ("deer", 0.8, BOX)], [("deer", 0.9, BOX), ("fox", 0.8, BOX)], (1, 0, 0, 1)),
]


def test_edges_of_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kinds(monkeypatch, [case[:2] for case in EDGES]) == [want for *_, want in EDGES]


@pytest.mark.parametrize(
    ("shifts", "want"), [([-4, 8], (2, -4, -4, 8)), ([*range(20)], (9.5, 9, 0, 18)), ([*range(21)], (10, 10, 1, 19))]
)
def test_shifts_are_summed_up(shifts: list[int], want: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """In 64ths: quantile q is the least shift that at least q of all do not exceed."""
    world = World()
    for n, shift in enumerate(shifts):
        world.image(str(n), [("deer", 0.5, BOX)], [("deer", 0.5 + shift / 64, BOX)])
    found = compare(world.in_memory(monkeypatch), old_side(), new_side()).boxes.shift
    assert found is not None
    steps = (found.mean, found.median, found.p5, found.p95)
    assert steps == pytest.approx([one / 64 for one in want], abs=5e-5)


def test_a_chain_takes_one_pair_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each box overlaps its two neighbours, a little less from left to right."""
    places = [0, 10, 21, 33, 46, 60, 75, 91]
    row: list[Seen] = [("deer", 0.5, (float(x), 0.0, float(x + 100), 10.0)) for x in places]
    old, new = row[::2], row[1::2]
    world = World().image("a", old, new)
    wanted = oracle.impact(world, {"": 0}, {"": 0})["boxes"]
    assert wanted["matched"] == 4
    assert kinds(monkeypatch, [(old, new)]) == [(wanted["matched"], wanted["lost"], wanted["new"], 0)]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.4])
def test_a_score_at_its_threshold(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows hold 32 bits: 0.7 is stored as 0.69999999 and 0.4 as 0.40000001; thresholds are read the same."""
    cases: list[tuple[list[Seen], list[Seen]]] = [
        ([], [("deer", score, BOX)]) for score in (threshold, threshold - 1e-5)
    ]
    assert [new for _, _, new, _ in kinds(monkeypatch, cases, threshold)] == [1, 0]


def test_the_same_tables_give_the_same_json(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for n in range(50):
        box = (0.0, 0.0, 4.0 + n, 4.0)
        seen_old = [("deer", 0.123 + n / 100, box), ("fox", 0.3, (50.0, 0.0, 60.0, 9.0))]
        world.image(str(n), seen_old[: 1 + n % 2], [("deer", 0.1 + n / 99, box)], [f"c{n % 7}", None])
    tables = world.in_memory(monkeypatch)
    first = compare(tables, old_side(), new_side()).model_dump_json()
    assert compare(tables, old_side(), new_side()).model_dump_json() == first
