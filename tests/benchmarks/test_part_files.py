"""part_files: when a Parquet file counts as there, and the rate between a tenth and nine tenths."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.peers.part_files import PartFiles, steady_rate

SCHEMA = pa.schema([("path", pa.string()), ("error", pa.string())])


def written(file: Path, *errors: str | None) -> bytes:
    pq.write_table(pa.table({"path": ["a.jpg"] * len(errors), "error": list(errors)}, schema=SCHEMA), file)
    return file.read_bytes()


def test_a_file_counts_once_its_footer_is_there(tmp_path: Path):
    file = tmp_path / "one.parquet"
    whole = written(file, None, "broken", None)
    parts = PartFiles(tmp_path)
    for now_s, length in ((1.0, 0), (2.0, 4), (3.0, len(whole) - 1)):
        file.write_bytes(whole[:length])  # 4: only the magic it begins with
        parts.look(now_s)
        assert parts.files == []
    file.write_bytes(whole)
    parts.look(4.0)
    parts.look(5.0)
    assert (parts.first_s, parts.rows, parts.errors) == (4.0, 3, 1)


def test_start_and_drain_are_left_out_of_the_steady_rate():
    slow_start = [(30.0, 10)]
    even = [(30.0 + i, 10) for i in range(1, 9)]
    slow_end = [(99.0, 10)]
    assert steady_rate(slow_start + even + slow_end) == pytest.approx(10.0)
