"""The newest rows of a table of events, however many there are: older files are left unopened.

(snapshot, its column of times, since) -> rows of one inference key. What delta-rs states of every file
decides which are opened; their rows are looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow.dataset as ds
from deltalake import DeltaTable


def recent_rows(
    table: DeltaTable | None, moment: str, since: datetime, columns: Sequence[str], **same: str
) -> list[dict[str, Any]]:
    """Rows after `since` (with its time zone) by the column `moment` that have the same values in the columns named;
    none where there is no table. A column that the table does not have yet is left out of them.
    """
    if table is None:
        return []
    newest = table.to_pyarrow_dataset(file_pruning_predicate=[(moment, ">", since)])
    wanted = ds.field(moment) > since
    for column, value in same.items():
        wanted &= ds.field(column) == value
    there = [column for column in columns if column in newest.schema.names]
    return list(newest.to_table(there, filter=wanted).to_pylist())
