"""Comparisons of real tables: which images count, and under which camera."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from batch.publishing.impact import load
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


def test_content_under_two_cameras_counts_once_under_that_of_its_first_file(tables: Tables) -> None:
    world = World().image("a", [DEER], [], cameras=["c1", "c2", "c1"]).image("b", [DEER], [DEER])
    impact = compare(world.write(tables), old_side(), new_side())
    assert (impact.images.compared, impact.boxes.lost, impact.boxes.matched) == (2, 1, 1)
    found = {one.camera_id: (one.compared, one.lost, one.matched) for one in impact.cameras}
    assert found == {"c1": (2, 1, 1)}


def test_contents_that_are_gone_are_no_loss(tables: Tables) -> None:
    world = World().image("a", [DEER], [DEER]).image("b", [DEER])
    world.files["b"] = [("c1", False)]
    world.old["never catalogued"] = [DEER]
    del world.new["b"]
    impact = compare(world.write(tables), old_side(), new_side())
    assert (impact.images.old, impact.images.both, impact.images.gone) == (1, 1, 2)


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


def test_only_the_detections_of_images_asked_for_are_taken_apart(tables: Tables) -> None:
    """As DuckDB counted the rows that come into `unnest`."""
    world = World()
    for i in range(20):
        world.image(f"i{i}", [DEER, FOX], [DEER])
    world.write(tables)
    sql = duckdb.connect()
    load.load(sql, tables, old_side(), new_side(), pa.array([sha("i1"), sha("i2"), sha("none")]))
    assert sql.sql("select count(*) from old_boxes").fetchall() == [(4,)]
    sql.execute("pragma enable_profiling = 'json'")
    asked = "explain analyze " + load._BOXES.format(side="old").partition(" as\n")[2]
    profile = json.loads(sql.execute(asked, {"threshold": 0.0}).fetchall()[0][1])
    (unnest,) = [node for node in nodes(profile) if node.get("type") == "UNNEST"]
    assert unnest["intermediate_rows"] == 4


def nodes(found: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document."""
    if isinstance(found, dict):
        yield found
        found = list(found.values())
    if isinstance(found, list):
        for below in found:
            yield from nodes(below)
