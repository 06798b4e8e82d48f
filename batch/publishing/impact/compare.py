"""Compare two sides in a scratch database that exists as long as the Comparison.

tables, old, new, media --compare--> Comparison(impact; sql: relations that samples are chosen from)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from archive.delta.scratch_db import LARGE_MIB, Scratch
from archive.delta.tables import Tables
from batch.publishing.impact.facts import Impact
from batch.publishing.impact.load import load, match
from batch.publishing.impact.measure import measure
from batch.publishing.impact.result_sets import Side
from batch.publishing.impact.samples import hold_against


@dataclass(frozen=True)
class Comparison:
    impact: Impact
    sql: duckdb.DuckDBPyConnection


@contextmanager
def compared(tables: Tables, old: Side, new: Side, media: pa.Array | None = None) -> Iterator[Comparison]:
    """Yield the comparison of two sides. `media` are the digests of the images to compare, None for all.

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
    """Return only the facts of a comparison. Raises StorageUnreachable."""
    with compared(tables, old, new, media) as comparison:
        return comparison.impact
