"""Which images are chosen to be looked at."""

from __future__ import annotations

import pytest

from batch.publishing.impact.compare import compared
from batch.publishing.impact.samples import KINDS, Sample, choose
from tests.batch.publishing.impact.scene import Seen, World, new_side, old_side

BOX = (0.0, 0.0, 40.0, 40.0)
AWAY = (100.0, 100.0, 140.0, 140.0)
DEER: Seen = ("deer", 0.75, BOX)
FOX: Seen = ("fox", 0.75, BOX)
OTHER: Seen = ("deer", 0.5, AWAY)


def chosen(world: World, per_kind: int, patch: pytest.MonkeyPatch) -> list[Sample]:
    with compared(world.in_memory(patch), old_side(), new_side()) as comparison:
        found = choose(comparison.sql, per_kind)
        assert choose(comparison.sql, per_kind) == found
        return found


@pytest.fixture
def world() -> World:
    """Of every kind of change many, under five cameras; half of the images change in nothing."""
    world = World()
    for n in range(60):
        name, cameras = f"{n}", [f"c{n % 5}"]
        match n % 6:
            case 0:
                world.image(name, [DEER, OTHER], [DEER], cameras)
            case 1:
                world.image(name, [DEER], [DEER, OTHER], cameras)
            case 2:
                world.image(name, [DEER], [FOX], cameras)
            case 3:
                world.image(name, [DEER, OTHER], [OTHER], cameras).say("keep", name, "deer", BOX)
            case _:
                world.image(name, [DEER], [DEER], cameras)
    return world


def test_without_change_there_is_nothing_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(World(), 5, monkeypatch) == []
    assert chosen(World().image("a", [DEER], [DEER]).image("b"), 5, monkeypatch) == []


def test_so_many_of_each_kind_verified_first_and_no_image_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(world, 4, monkeypatch)
    assert [one.kind for one in found] == ["verified"] * 4 + ["lost"] * 4 + ["new"] * 4 + ["relabelled"] * 4
    assert len({one.media_sha256 for one in found}) == len(found)
    assert list(KINDS)[-1] == "emptied"


def test_cameras_take_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(world, 5, monkeypatch)
    for kind in ("verified", "new", "relabelled"):
        cameras = {one.camera_id for one in found if one.kind == kind}
        assert cameras == {f"c{n}" for n in range(5)}, kind


def test_an_emptied_image_is_an_example_of_that_when_others_are_lost_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().image("a", [DEER], []).image("b", [DEER], [])
    assert [one.kind for one in chosen(world, 1, monkeypatch)] == ["lost", "emptied"]


def test_a_sample_says_what_became_of_each_box(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().image("a", [DEER, OTHER], [FOX], ["c2", "c1", None])
    world.say("keep", "a", "deer", AWAY)
    (sample,) = chosen(world, 3, monkeypatch)
    assert [(box.label, box.outcome) for box in sample.old] == [("deer", "relabelled"), ("deer", "lost")]
    assert [(box.label, box.outcome, box.box_px) for box in sample.new] == [("fox", "relabelled", BOX)]
    assert (sample.camera_id, len(sample.places)) == (None, 3)
    (said,) = sample.said
    assert (said.old, said.new, said.lost, said.box_px) == ("right", "wrong", True, AWAY)


def test_a_failed_image_that_people_looked_at_is_shown_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().image("a", [DEER], None).say("keep", "a", "deer", BOX)
    (sample,) = chosen(world, 3, monkeypatch)
    assert (sample.kind, sample.new) == ("verified", ())
    assert [box.outcome for box in sample.old] == ["shown"]
