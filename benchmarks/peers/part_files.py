"""Parquet files as they appear in a folder: when each was complete, the first rows, the rate in the steady state.

parts = PartFiles(folder); parts.look(now_s) every so often; parts.first_s, .rows, .errors, .steady_rate()

A Parquet file is complete when its footer is: it begins and ends with PAR1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import pyarrow.parquet as pq

MAGIC = b"PAR1"
LEAST_BYTES = 12  # magic, length of the footer, magic
LEAST_PARTS = 10  # of a run that is told to have a steady state


class PartFiles:
    """Looks at each file again until it is complete, and never after."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen_s: dict[Path, float] = {}

    def look(self, now_s: float) -> None:
        for file in self._folder.rglob("*.parquet"):
            if file not in self._seen_s and is_complete(file):
                self._seen_s[file] = now_s

    @property
    def files(self) -> list[Path]:
        """In the order in which they were seen."""
        return list(self._seen_s)

    @property
    def first_s(self) -> float | None:
        """When rows could first be read."""
        return min((seen_s for file, seen_s in self._seen_s.items() if rows_of(file)), default=None)

    @property
    def rows(self) -> int:
        return sum(rows_of(file) for file in self._seen_s)

    @property
    def errors(self) -> int:
        """Rows whose column `error` says something."""
        return sum(errors_of(file) for file in self._seen_s)

    def steady_rate(self) -> float | None:
        return steady_rate([(seen_s, rows_of(file)) for file, seen_s in self._seen_s.items()])


def is_complete(file: Path) -> bool:
    try:
        if file.stat().st_size < LEAST_BYTES:
            return False
        with file.open("rb") as opened:
            opened.seek(-len(MAGIC), 2)
            return opened.read() == MAGIC
    except FileNotFoundError:  # renamed meanwhile
        return False


def rows_of(file: Path) -> int:
    return pq.read_metadata(file).num_rows


def errors_of(file: Path) -> int:
    said = pq.read_table(file, columns=["error"])["error"]
    return len(said) - said.null_count


def steady_rate(arrivals: Sequence[tuple[float, int]]) -> float | None:
    """Rows a second between a tenth and nine tenths of them, as a run of ours counts its own; None for too few.

    `arrivals`: seconds, rows that came then.
    """
    if len(arrivals) < LEAST_PARTS:
        return None
    seconds, each = zip(*sorted(arrivals), strict=True)
    so_far = list(accumulate(each))
    least, most = 0.1 * so_far[-1], 0.9 * so_far[-1]
    inside = [(s, n) for s, n in zip(seconds, so_far, strict=True) if least <= n <= most]
    if len(inside) < 2 or inside[-1][0] <= inside[0][0]:
        return None
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])
