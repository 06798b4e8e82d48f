"""Two sides, compared in a scratch database that lives as long as the Comparison.

tables, old, new, media --compare--> Comparison(impact; sql: relations that samples are chosen from)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from archive.scratch import LARGE_MIB, Scratch
from archive.tables import Tables
from batch.impact.facts import Impact
from batch.impact.load import load
from batch.impact.match import match
from batch.impact.measure import measure
from batch.impact.sides import Side
from batch.impact.verified import hold_against


@dataclass(frozen=True)
class Comparison:
    impact: Impact
    sql: duckdb.DuckDBPyConnection


@contextmanager
def compared(
    tables: Tables, old: Side, new: Side, media: pa.Array | None = None
) -> Iterator[Comparison]:
    """`media` are digests of the images to compare, None for all that either side has.

    Raises StorageUnreachable.
    """
    scratch = Scratch("impact", LARGE_MIB, in_order=False)
    try:
        load(scratch.sql, tables, old, new, media)
        match(scratch.sql)
        hold_against(scratch.sql, tables)
        yield Comparison(measure(scratch.sql, old, new), scratch.sql)
    finally:
        scratch.close()


def compare(tables: Tables, old: Side, new: Side, media: pa.Array | None = None) -> Impact:
    """The facts alone. Raises StorageUnreachable."""
    with compared(tables, old, new, media) as comparison:
        return comparison.impact
