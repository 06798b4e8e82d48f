"""What a Delta log says of a Parquet file: numbers of rows and nulls, least and greatest values.

footer --file_stats--> JSON. All columns outside lists have least and greatest values, or none has: with those
of some alone, readers by pyarrow leave rows out and say nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from pyarrow.parquet import FileMetaData

_MS = timedelta(milliseconds=1)


def file_stats(footer: FileMetaData, schema: pa.Schema) -> str:
    """The `stats` of an add action. Only `numRecords` when a value has no JSON, or is over 4 KB long."""
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    leaves = list(_leaves(schema))
    places = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    for leaf in leaves:
        found = _of_column(footer, places[".".join(leaf)])
        if found is None:
            return json.dumps({"numRecords": footer.num_rows})
        low, high, null_count = found
        _put(nulls, leaf, null_count)
        if null_count < footer.num_rows:
            _put(least, leaf, _json(low, -1))
            _put(greatest, leaf, _json(high, 1))
    return json.dumps(
        {
            "numRecords": footer.num_rows,
            "minValues": least,
            "maxValues": greatest,
            "nullCount": nulls,
        }
    )


def _leaves(fields: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of the columns that are in no list."""
    for field in fields:
        if pa.types.is_struct(field.type):
            yield from _leaves(field.type, (*above, field.name))
        elif not pa.types.is_nested(field.type):
            yield (*above, field.name)


def _of_column(footer: FileMetaData, column: int) -> tuple[Any, Any, int] | None:
    """(least, greatest, nulls), the first two None when all are null; None when they are not known."""
    lows: list[Any] = []
    highs: list[Any] = []
    nulls = 0
    for group in range(footer.num_row_groups):
        chunk = footer.row_group(group).column(column)
        stats = chunk.statistics
        if stats is None or not stats.has_null_count:
            return None
        nulls += stats.null_count
        if stats.has_min_max:
            lows.append(stats.min)
            highs.append(stats.max)
        elif stats.null_count < chunk.num_values:
            return None
    if not lows:
        return None, None, nulls
    low, high = min(lows), max(highs)
    known = all(math.isfinite(v) for v in (low, high) if isinstance(v, float))
    return (low, high, nulls) if known else None


def _json(value: Any, side: int) -> Any:
    """Times in whole milliseconds, as Delta has them: down for the least, up for the greatest."""
    if not isinstance(value, datetime):
        return value
    spare = timedelta(microseconds=value.microsecond % 1000)
    whole = value - spare + (_MS if spare and side > 0 else timedelta())
    return whole.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _put(tree: dict[str, Any], leaf: tuple[str, ...], value: Any) -> None:
    for name in leaf[:-1]:
        tree = tree.setdefault(name, {})
    tree[leaf[-1]] = value
