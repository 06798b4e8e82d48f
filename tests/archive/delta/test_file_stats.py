"""Statistics in the log: for all columns or none, and never narrower than the rows."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.delta.rewrite import file_stats


def stats(rows: pa.Table, group: int = 100) -> dict[str, Any]:
    file, footer = io.BytesIO(), []
    with pq.ParquetWriter(file, rows.schema, metadata_collector=footer) as writer:
        writer.write_table(rows, row_group_size=group)
    found: dict[str, Any] = json.loads(file_stats(footer[0], rows.schema))
    return found


def column(values: list[Any], kind: pa.DataType, group: int = 100) -> dict[str, Any]:
    return stats(pa.table({"c": pa.array(values, kind), "n": range(len(values))}), group)


@pytest.mark.parametrize(
    ("values", "kind", "least", "greatest"),
    [
        (["b", None, "a"], pa.string(), "a", "b"),
        (["ä", "z", "😀"], pa.string(), "z", "😀"),
        ([3, -1, None], pa.int32(), -1, 3),
        ([True, False], pa.bool_(), False, True),
        ([0.1, 0.3], pa.float32(), 0.10000000149011612, 0.30000001192092896),
    ],
)
@pytest.mark.parametrize("group", [1, 100])
def test_least_and_greatest_are_those_of_the_rows(
    values: list[Any], kind: pa.DataType, least: Any, greatest: Any, group: int
) -> None:
    found = column(values, kind, group)
    assert found == {
        "numRecords": len(values),
        "minValues": {"c": least, "n": 0},
        "maxValues": {"c": greatest, "n": len(values) - 1},
        "nullCount": {"c": values.count(None), "n": 0},
    }


def test_a_column_of_nulls_has_their_number_alone() -> None:
    found = column([None, None], pa.string())
    assert (found["minValues"], found["maxValues"]) == ({"n": 0}, {"n": 1})
    assert found["nullCount"] == {"c": 2, "n": 0}


@pytest.mark.parametrize(
    ("micros", "least", "greatest"),
    [(0, "000Z", "000Z"), (5000, "005Z", "005Z"), (5001, "005Z", "006Z"), (999_999, "999Z", "000Z")],
)
def test_times_are_whole_milliseconds_that_span_the_rows(micros: int, least: str, greatest: str) -> None:
    time = datetime(2025, 1, 2, 3, 4, 5, micros, tzinfo=UTC)
    found = column([time], pa.timestamp("us", tz="UTC"))
    assert found["minValues"]["c"] == f"2025-01-02T03:04:05.{least}"
    second = 6 if micros == 999_999 else 5
    assert found["maxValues"]["c"] == f"2025-01-02T03:04:0{second}.{greatest}"


def test_structs_are_looked_into_and_lists_are_not() -> None:
    rows = [
        {"counts": {"ok": 1, "deep": {"x": None}}, "boxes": [{"label": "deer"}]},
        {"counts": {"ok": 5, "deep": {"x": None}}, "boxes": []},
        {"counts": None, "boxes": None},
    ]
    deep = pa.struct([("x", pa.string())])
    schema = pa.schema(
        [
            ("counts", pa.struct([("ok", pa.int64()), ("deep", deep)])),
            ("boxes", pa.list_(pa.struct([("label", pa.string())]))),
        ]
    )
    assert stats(pa.Table.from_pylist(rows, schema=schema)) == {
        "numRecords": 3,
        "minValues": {"counts": {"ok": 1}},
        "maxValues": {"counts": {"ok": 5}},
        "nullCount": {"counts": {"ok": 1, "deep": {"x": 3}}},
    }


@pytest.mark.parametrize(
    ("value", "kind"), [("x" * 5000, pa.string()), (math.inf, pa.float64()), (-math.inf, pa.float32())]
)
@pytest.mark.parametrize("group", [1, 100])
def test_where_one_column_cannot_be_told_none_is(value: Any, kind: pa.DataType, group: int) -> None:
    other = "a" if isinstance(value, str) else 1.0
    assert column([other, value, None], kind, group) == {"numRecords": 3}


@given(st.lists(st.one_of(st.none(), st.floats(width=32, allow_nan=False)), min_size=1), st.integers(1, 4))
def test_no_row_is_outside(values: list[float | None], group: int) -> None:
    found = column(values, pa.float32(), group)
    there = [value for value in values if value is not None]
    if "minValues" in found and there:
        assert found["minValues"]["c"] <= min(there)
        assert found["maxValues"]["c"] >= max(there)
    else:
        assert not there or any(map(math.isinf, there))
