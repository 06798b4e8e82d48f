"""What people said, held against both sides."""

from __future__ import annotations

from typing import Any

import pytest

from batch.publishing.impact.compare import compare, compared
from batch.publishing.impact.measure import Verified
from tests.batch.publishing.impact.scene import Seen, World, new_side, old_side

BOX = (0.0, 0.0, 40.0, 40.0)
HALF = (0.0, 0.0, 40.0, 20.0)
AWAY = (100.0, 100.0, 140.0, 140.0)
DEER: Seen = ("deer", 0.75, BOX)
FOX: Seen = ("fox", 0.75, BOX)


def verdict(verified: Verified) -> str:
    """Of one assertion."""
    assert verified.said == 1
    new = next(name for name in ("confirmed", "contradicted", "unseen") if getattr(verified, name))
    return " ".join([new, *(name for name in ("lost", "gained") if getattr(verified, name))])


CASES: list[tuple[tuple[str, str | None, Any], list[Seen] | None, list[Seen] | None, str]] = [
    (("keep", "deer", BOX), [DEER], [DEER], "confirmed"),
    (("keep", "deer", HALF), [DEER], [DEER], "confirmed"),
    (("keep", "deer", BOX), [DEER], [], "contradicted lost"),
    (("keep", "deer", BOX), [DEER], [FOX], "contradicted lost"),
    (("keep", "deer", BOX), [DEER], [("deer", 0.75, AWAY)], "contradicted lost"),
    (("keep", "deer", BOX), [DEER], [("deer", 0.25, BOX)], "contradicted lost"),
    (("keep", "deer", BOX), [DEER], None, "unseen lost"),
    (("keep", "deer", BOX), None, [], "contradicted"),
    (("relabel", "fox", BOX), [DEER], [DEER], "contradicted"),
    (("relabel", "fox", BOX), [DEER], [FOX], "confirmed gained"),
    (("relabel", "fox", BOX), [DEER], [DEER, FOX], "confirmed gained"),
    (("suppress", None, BOX), [DEER], [DEER], "contradicted"),
    (("suppress", None, BOX), [DEER], [FOX], "contradicted"),
    (("suppress", None, BOX), [], [FOX], "contradicted lost"),
    (("suppress", None, BOX), [DEER], [("deer", 0.75, AWAY)], "confirmed gained"),
    (("suppress", None, BOX), [], None, "unseen"),
    (("suppress", None, None), [], [DEER], "contradicted lost"),
    (("suppress", None, None), [], [], "confirmed"),
    (("suppress", None, None), [DEER], [("deer", 0.25, BOX)], "confirmed gained"),
]


def test_one_assertion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is about an image of its own. Shown from 0.5; a box that people confirm lies elsewhere."""
    world = World()
    for number, ((action, label, box), old, new, _) in enumerate(CASES):
        world.image(f"{number:03d}", old, new).say(action, f"{number:03d}", label, box)
    with compared(world.in_memory(monkeypatch), old_side(0.5), new_side(0.5)) as comparison:
        found = comparison.sql.sql(
            "select concat_ws(' ', case new when 'right' then 'confirmed' when 'wrong' then 'contradicted' "
            "else new end, "
            "if(lost, 'lost', null), if(old <> 'right' and new = 'right', 'gained', null)) "
            "from verdicts order by assertion_id"
        ).fetchall()
    assert [words for (words,) in found] == [want for *_, want in CASES]
    wanted = {
        (action, label, box, f"c1/0/{number:03d}.jpg")
        for number, ((action, label, box), _, _, want) in enumerate(CASES)
        if "lost" in want
    }
    lost = comparison.impact.lost_assertions
    assert {(one.action, one.label, one.box_px, one.path) for one in lost} == wanted
    assert len(lost) == comparison.impact.verified.lost == len(wanted)


def test_an_image_that_the_new_side_lacks_is_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().image("a", [DEER]).say("keep", "a", "deer", BOX)
    del world.new["a"]
    verified = compare(world.in_memory(monkeypatch), old_side(), new_side()).verified
    assert verdict(verified) == "unseen lost"


def test_what_is_gone_or_nowhere_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().image("a", [DEER], []).image("b").say("keep", "a", "deer", BOX)
    world.say("keep", "unknown", "deer", BOX).say("keep", "c", "deer", BOX)
    world.files |= {"a": [("c1", False)], "c": [("c1", True)]}
    assert compare(world.in_memory(monkeypatch), old_side(), new_side()).verified.said == 0


def test_a_suppressed_duplicate_is_not_shown_again_by_the_one_that_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two boxes on one deer: people keep one and suppress the other, which overlaps it."""
    other = (0.0, 0.0, 40.0, 30.0)
    world = World().image("a", [DEER, ("deer", 0.6, other)], [DEER])
    world.say("keep", "a", "deer", BOX).say("suppress", "a", "deer", other)
    verified = compare(world.in_memory(monkeypatch), old_side(), new_side()).verified
    assert (verified.confirmed, verified.contradicted, verified.gained) == (2, 0, 1)
    world.new["a"] = [DEER, ("fox", 0.6, other)]
    verified = compare(world.in_memory(monkeypatch), old_side(), new_side()).verified
    assert (verified.confirmed, verified.contradicted) == (1, 1)


def test_the_newest_word_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().image("a", [DEER], []).say("keep", "a", "deer", BOX, later_h=1)
    world.say("suppress", "a", "deer", BOX, later_h=2)
    verified = compare(world.in_memory(monkeypatch), old_side(), new_side()).verified
    assert (verified.said, verified.lost, verified.gained) == (1, 0, 1)


BESIDE = (2.0, 0.0, 42.0, 40.0)


def test_a_correction_that_is_drawn_beside_an_older_word_leaves_the_gate_open(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().image("a", [DEER], [FOX]).say("keep", "a", "deer", BOX)
    world.say("relabel", "a", "fox", BESIDE, later_h=19)
    impact = compare(world.in_memory(monkeypatch), old_side(), new_side())
    verified = impact.verified
    assert (verified.said, verified.confirmed, verified.lost, verified.gained) == (1, 1, 0, 1)
    assert impact.lost_assertions == ()


@pytest.mark.parametrize("then", ["keep", "suppress"])
def test_a_sighting_and_a_denial_of_it_are_never_both_held_against_a_side(
    monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """Neither side can be right about both; the newest decides, and the side that follows it loses nothing."""
    before, shown = ("suppress", [DEER]) if then == "keep" else ("keep", [])
    old = [] if shown else [DEER]
    world = World().image("a", old, shown).say(before, "a", "deer", BOX)
    world.say(then, "a", "deer", BESIDE, later_h=1)
    verified = compare(world.in_memory(monkeypatch), old_side(), new_side()).verified
    assert (verified.said, verified.lost, verified.gained) == (1, 0, 1)
