"""Human statements about boxes, without a view or layers, in a file: test_resolve.py has the rules."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from archive.annotations.assertions import match_annotations
from archive.schemas import ASSERTIONS
from tests.archive.resolve_oracle import Seen, World
from tests.archive.resolve_worlds import KEY, OTHER, person, sha

Heard = tuple[str, int, str, str | None, str]
BOX, FAR = (0.0, 0.0, 12.0, 12.0), (50.0, 0.0, 62.0, 12.0)
BOXES = pa.schema(
    [("media_sha256", pa.string()), ("rank", pa.int32()), ("label", pa.string()), ("score", pa.float32())]
    + [(name, pa.float64()) for name in ("x1_px", "y1_px", "x2_px", "y2_px")]
)


def heard(world: World, place: str) -> tuple[list[Heard], list[str]]:
    """Return the rows of `heard` and the ids of orphaned statements."""
    with duckdb.connect(place) as sql:
        sql.execute("set timezone = 'UTC'")
        found = [
            {"media_sha256": image, "rank": rank, "label": one.label, "score": one.score}
            | dict(zip(BOXES.names[4:], one.box, strict=True))
            for (image, rank), one in world.detections.items()
        ]
        sql.register("boxes", pa.Table.from_pylist(found, schema=BOXES))
        rows = pa.Table.from_pylist([*world.human, *world.machine], schema=ASSERTIONS)
        sql.register("assertion_rows", rows)
        match_annotations(sql, world.key)
        told = "select media_sha256, rank, action, label, assertion_id from annotated order by all"
        lost = "select assertion_id from orphaned order by all"
        return sql.sql(told).fetchall(), [one for (one,) in sql.sql(lost).fetchall()]


def test_statements_are_matched_in_a_database_on_disk(tmp_path: Path) -> None:
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
