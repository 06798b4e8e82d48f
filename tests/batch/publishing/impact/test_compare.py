"""Comparisons of real tables: which images count, and under which camera."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from batch.publishing.impact.compare import compare
from tests.batch.publishing.impact.scene import Seen, World, new_side, old_side, sha

DEER: Seen = ("deer", 0.75, (0.0, 0.0, 40.0, 40.0))
FOX: Seen = ("fox", 0.5, (100.0, 0.0, 140.0, 40.0))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


def test_without_tables_nothing_changes(tables: Tables) -> None:
    impact = compare(tables, old_side(), new_side())
    assert not any(impact.images.model_dump().values())
    assert impact.boxes.shift is None
    assert (impact.labels, impact.cameras, impact.relabelled) == ((), (), ())
    assert not list(Path(tables.url).glob("*")), "a comparison writes nothing"


def test_real_tables_are_compared_by_their_keys(tables: Tables) -> None:
    world = World().image("a", [DEER, FOX], [DEER]).image("b", [], [FOX]).image("c", [DEER], None)
    impact = compare(world.write(tables), old_side(), new_side())
    images, boxes = impact.images, impact.boxes
    assert (images.old, images.new, images.both, images.compared) == (3, 3, 3, 2)
    assert (images.new_failed, images.newly_failed, images.old_failed) == (1, 1, 0)
    assert (images.changed, images.emptied, images.filled) == (2, 0, 1)
    assert (boxes.matched, boxes.lost, boxes.new) == (1, 1, 1)
    assert [one.label for one in impact.labels] == ["deer", "fox"]


def test_a_moved_threshold_is_a_comparison_of_one_key(tables: Tables) -> None:
    world = World().image("a", [DEER, FOX], None).image("b", [FOX], None)
    side = old_side(0.5)
    impact = compare(world.write(tables), side, side.model_copy(update={"threshold": 0.51}))
    assert (impact.boxes.matched, impact.boxes.lost, impact.images.emptied) == (1, 2, 1)
    same = compare(tables, side, side)
    assert (same.images.changed, same.boxes.matched) == (0, 3)


def test_only_the_images_asked_for_are_compared(tables: Tables) -> None:
    world = World().image("a", [DEER], []).image("b", [DEER], []).image("c", [DEER], [])
    del world.new["c"]
    world.say("keep", "a", "deer", DEER[2]).say("keep", "b", "deer", DEER[2])
    asked = pa.array([sha("a"), sha("unknown")])
    impact = compare(world.write(tables), old_side(), new_side(), asked)
    assert (impact.images.old, impact.images.both, impact.boxes.lost) == (1, 1, 1)
    assert impact.verified.said == 1
    none = compare(tables, old_side(), new_side(), pa.array([], pa.string()))
    assert none.images.old == 0
