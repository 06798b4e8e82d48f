"""Build Rows for tests from one dict per detection; missing values have a default."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from batch.filters.contract import COLUMNS, NO_RANK, Filter, FilterConfig, Rows, rows_of_table

PLAIN: dict[str, Any] = {
    "media_sha256": "a" * 64,
    "path": "north/0001.jpg",
    "camera_id": "north",
    "deployment_id": None,
    "location": None,
    "taken_local": None,
    "taken_utc": None,
    "clock_flags": "",
    "sequence_number": None,
    "sequence_length": None,
    "width_px": 1000.0,
    "height_px": 1000.0,
    "rank": 0,
    "label": "deer",
    "score": 0.9,
    "x1_px": 100.0,
    "y1_px": 100.0,
    "x2_px": 300.0,
    "y2_px": 300.0,
    "human": False,
    "group_id": None,
    "event_id": None,
}
NOTHING: dict[str, Any] = dict.fromkeys(("rank", "label", "score", "x1_px", "y1_px", "x2_px", "y2_px"))
"""An image without detections: `detection(**NOTHING)`."""


def detection(**given: Any) -> dict[str, Any]:
    return PLAIN | given


def image(number: int) -> str:
    """Return a digest; digests sort by number."""
    return f"{number:064x}"


def rows(*detections: dict[str, Any], **more: Any) -> Rows:
    """Return the rows in the order of the contract; `more` as for `rows_of_table`."""
    late = ("~",)

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        taken = row["taken_local"]
        rank = -1 if row["rank"] is None else row["rank"]
        return (
            (row["camera_id"] is None, row["camera_id"] or late),
            (taken is None, taken and taken.isoformat()),
            row["path"],
            row["media_sha256"],
            rank,
        )

    extra = {name for row in detections for name in row} - set(COLUMNS.names)
    schema = COLUMNS if not extra else COLUMNS.append(pa.field("logits", pa.list_(pa.float32())))
    ordered = sorted(detections, key=order)
    return rows_of_table(pa.Table.from_pylist(ordered, schema=schema), **more)


def invalid(filter_: Filter, config: FilterConfig, table: Rows) -> list[bool]:
    """Return whether each row is a detection that counts as skipped_invalid."""
    assert filter_.invalid is not None
    return (filter_.invalid(config, table) & (table.rank != NO_RANK)).tolist()
