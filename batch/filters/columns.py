"""Convert an Arrow table, as read by `batch/filters/load.py`, to Rows. No column is copied twice.

pa.Table (schema COLUMNS) --rows_of_table--> Rows
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.filters.contract import NO_RANK, Rows

COLUMNS = pa.schema(
    [
        ("media_sha256", pa.string()),
        ("path", pa.string()),
        ("camera_id", pa.string()),
        ("taken_local", pa.timestamp("us")),
        ("taken_utc", pa.timestamp("us")),
        ("clock_flags", pa.string()),
        ("sequence_number", pa.int32()),
        ("sequence_length", pa.int32()),
        ("width_px", pa.float64()),
        ("height_px", pa.float64()),
        ("rank", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("x1_px", pa.float64()),
        ("y1_px", pa.float64()),
        ("x2_px", pa.float64()),
        ("y2_px", pa.float64()),
        ("human", pa.bool_()),
        ("group_id", pa.string()),
        ("event_id", pa.string()),
    ]
)
_BOX = ("x1_px", "y1_px", "x2_px", "y2_px")


def rows_of_table(table: pa.Table, classes: tuple[str, ...] = (), lineage: tuple[str, ...] = ()) -> Rows:
    """Return the rows of the table. The optional column `logits` has lists of one length, or nulls."""

    def of(name: str) -> np.ndarray:
        return table.column(name).to_numpy(zero_copy_only=False)

    return Rows(
        media_sha256=of("media_sha256"),
        path=of("path"),
        camera_id=of("camera_id"),
        taken_local=of("taken_local").astype("datetime64[us]"),
        taken_utc=of("taken_utc").astype("datetime64[us]"),
        clock_flags=of("clock_flags"),
        sequence_number=table.column("sequence_number").fill_null(0).to_numpy(),
        sequence_length=table.column("sequence_length").fill_null(0).to_numpy(),
        width_px=of("width_px"),
        height_px=of("height_px"),
        rank=table.column("rank").fill_null(NO_RANK).to_numpy(),
        label=of("label"),
        score=of("score").astype(np.float32),
        boxes_px=np.stack([of(name) for name in _BOX], axis=1).astype(np.float64),
        human=of("human").astype(bool),
        group_id=of("group_id"),
        event_id=of("event_id"),
        logits=_logits(table, len(classes)) if "logits" in table.column_names else None,
        classes=classes,
        class_lineage=lineage,
    )


def _logits(table: pa.Table, n: int) -> np.ndarray:
    """Return (rows, n) float32; NaN for rows without exactly n logits."""
    out = np.full((len(table), n), np.nan, np.float32)
    lists = table.column("logits")
    complete = pc.fill_null(pc.equal(pc.list_value_length(lists), n), False)
    values = pc.list_flatten(lists.filter(complete)).to_numpy()
    out[complete.to_numpy()] = values.reshape(-1, n)
    return out
