"""Rows of a pass as they come, into their table: committed, counted, watched.

tables of rows --into_table--> commits of `committer`; `arrived` counts each table
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa

from archive.compact import compact
from archive.tables import Tables
from batch.accounting import Counts
from batch.arrivals import arrivals
from batch.commit import Committer
from batch.patience import Patience
from batch.policy import Stop

TICK_S = 1.0
"""How long the driver waits for rows before it sees to the rest."""
COMPACT_EVERY = 500
"""Commits of a long run, after which their files are put together: the log and its readers stay quick."""


def into_table(
    rows: Iterable[pa.Table],
    tables: Tables,
    committer: Committer,
    stop: Stop,
    counts: Counts,
    arrived: Callable[[pa.Table], Counts],
) -> None:
    """All of `rows`. `counts` before any has come; `arrived` is called with each table and gives the counts by then.

    Raises TooManyFailed, RunStalled, TableConflict, StorageError, and what `rows` raises; what has come is kept then.
    """
    patience = Patience(stop, table=committer.table)
    compacted = 0
    coming = arrivals(rows, TICK_S)
    try:
        for more in coming:
            if more is not None:
                committer.add(more)
                counts = arrived(more)
            else:
                committer.tick()
            if committer.commits > compacted + COMPACT_EVERY:
                compacted = committer.commits
                compact(tables, committer.table, committer.inference_key, COMPACT_EVERY)
            patience.require(counts, arrived=more is not None)
    finally:  # what has been paid for is kept, also when the run is stopped
        coming.close()
        committer.flush()
