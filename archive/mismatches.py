"""Images whose file had other bytes than its row of `media` says, as runs have found them.

tables --mismatches--> media_sha256 and when it was seen, one row an image
A run compares what it reads with the catalogue; size and time of a file with other bytes may still be the
same (`cp -p`, damage on the disk), so that a listing shows nothing.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from archive.dataset import dataset
from archive.schemas import BY_KEY, TABLES
from archive.tables import Tables

_COLUMNS = ["media_sha256", "finished_at"]


def mismatches(tables: Tables) -> pa.Table:
    """Return `media_sha256` and `finished_at` (the latest) of rows that failed as `changed`, in any table of
    results. Raises StorageUnreachable.
    """
    schema = TABLES["results"]
    found = [pa.schema([schema.field(name) for name in _COLUMNS]).empty_table()]
    for name in BY_KEY:
        table = tables.existing(name)
        if table is not None:
            scanner = dataset(table, TABLES[name]).scanner(
                columns=_COLUMNS,
                filter=pc.field("error_code") == "changed",
                batch_readahead=2,
                fragment_readahead=1,
            )
            found.append(scanner.to_table())
    latest = pa.concat_tables(found).group_by("media_sha256").aggregate([("finished_at", "max")])
    return latest.rename_columns(_COLUMNS)
