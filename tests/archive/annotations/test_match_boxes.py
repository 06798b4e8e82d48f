"""Human statements about boxes, without a view or layers: compared with the oracle, in memory and in a file."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
from hypothesis import HealthCheck, event, given, settings

from archive.annotations.assertions import match_annotations
from archive.schemas import ASSERTIONS
from tests.archive import resolve_oracle as oracle
from tests.archive.resolve_oracle import Row, Seen, World
from tests.archive.resolve_worlds import KEY, OTHER, person, sha, worlds

Heard = tuple[str, int, str, str | None, str]
BOX, FAR = (0.0, 0.0, 12.0, 12.0), (50.0, 0.0, 62.0, 12.0)
BOXES = pa.schema(
    [("media_sha256", pa.string()), ("rank", pa.int32())]
    + [(name, pa.float64()) for name in ("x1_px", "y1_px", "x2_px", "y2_px")]
)


def heard(world: World, place: str = ":memory:") -> tuple[list[Heard], list[str]]:
    """Return the rows of `heard` and the ids of orphaned statements."""
    with duckdb.connect(place) as sql:
        sql.execute("set timezone = 'UTC'")
        found = [
            {"media_sha256": image, "rank": rank} | dict(zip(BOXES.names[2:], one.box, strict=True))
            for (image, rank), one in world.detections.items()
        ]
        sql.register("boxes", pa.Table.from_pylist(found, schema=BOXES))
        rows = pa.Table.from_pylist([*world.human, *world.machine], schema=ASSERTIONS)
        sql.register("assertion_rows", rows)
        match_annotations(sql, world.key)
        told = "select media_sha256, rank, action, label, assertion_id from annotated order by all"
        lost = "select assertion_id from orphaned order by all"
        return sql.sql(told).fetchall(), [one for (one,) in sql.sql(lost).fetchall()]


def expected(world: World) -> tuple[list[Heard], list[str]]:
    said: dict[oracle.Target, Row] = {}
    empty = {row["media_sha256"]: row for row in oracle.standing(world.human) if oracle.box_of(row) is None}
    attached = oracle.attached(world)
    for target in world.detections:
        row = attached.get(target) or empty.get(target[0])
        if row:
            said[target] = row
    return sorted((*target, row["action"], row.get("label"), row["assertion_id"]) for target, row in said.items()), [
        one for one, _ in oracle.orphaned(world)
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds())
def test_who_is_heard_is_what_the_rules_say(world: World) -> None:
    wanted = expected(world)
    event(f"heard: {bool(wanted[0])}, orphaned: {bool(wanted[1])}")
    assert heard(world) == wanted


def test_it_is_the_same_in_a_database_on_disk(tmp_path: Path) -> None:
    """Set up a filter run: human statements are a temporary table, and the relations are views over it."""
    seen = [Seen("deer", 0.9, BOX), Seen("fox", 0.5, FAR)]
    world = World(KEY, {}, {KEY: {sha(1): seen, sha(2): seen[:1]}, OTHER: {}})
    world.human = [
        person("relabel", sha(1), BOX, label="hare"),
        person("suppress", sha(1), (200.0, 0.0, 212.0, 12.0)),
        person("suppress", sha(2)),
    ]
    told, lost = heard(world, str(tmp_path / "scratch.duckdb"))
    assert [(image, rank, action) for image, rank, action, _, _ in told] == [
        (sha(1), 0, "relabel"),
        (sha(2), 0, "suppress"),
    ]
    assert lost == [world.human[1]["assertion_id"]]


def test_the_detection_that_is_named_comes_before_the_one_that_is_covered() -> None:
    world = World(KEY, {}, {KEY: {sha(1): [Seen("deer", 0.9, BOX)] * 2}, OTHER: {}})
    world.human = [person("relabel", sha(1), BOX, label="hare", inference_key=KEY, rank=1)]
    assert [row[1] for row in heard(world)[0]] == [1]
    world.human = [person("relabel", sha(1), BOX, label="hare", inference_key=OTHER, rank=1)]
    assert [row[1] for row in heard(world)[0]] == [0], "a rank of another model is no name here"


def test_an_empty_image_and_a_box_of_it_are_said_once() -> None:
    world = World(KEY, {}, {KEY: {sha(1): [Seen("deer", 0.9, BOX), Seen("fox", 0.5, FAR)]}, OTHER: {}})
    empty, box = person("suppress", sha(1)), person("suppress", sha(1), BOX, hour=1)
    world.human = [empty, box]
    ids = {(image, rank): said for image, rank, _, _, said in heard(world)[0]}
    assert len(heard(world)[0]) == len(ids)
    assert ids == {(sha(1), 0): box["assertion_id"], (sha(1), 1): empty["assertion_id"]}
