"""Write CSV that spreadsheets open: no cell is a formula, and no file has more rows than Excel reads."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

EXCEL_ROWS = 1_048_576
"""Maximum number of rows of a sheet in Excel, with the header."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of formulas (https://owasp.org/www-community/attacks/CSV_Injection)."""


def as_text(value: Any) -> Any:
    """Return a text that spreadsheets do not read as a formula: with an apostrophe before it. Numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


class SheetFiles:
    """A table in files NAME.csv, NAME-2.csv and so on, each with the header and at most `max_rows` rows."""

    def __init__(self, folder: Path, name: str, columns: Sequence[str], max_rows: int = EXCEL_ROWS) -> None:
        self._folder, self._name, self._columns = folder, name, columns
        self._max_rows = max_rows
        self._number = 0
        self._file = self._next_file()

    def _next_file(self) -> IO[str]:
        self._number += 1
        suffix = f"-{self._number}" if self._number > 1 else ""
        file = (self._folder / f"{self._name}{suffix}.csv").open("w", encoding="utf-8", newline="")
        self._writer, self._rows = csv.writer(file), 1
        self._writer.writerow(self._columns)
        return file

    def write(self, row: Sequence[Any]) -> None:
        """Write the values of a row in the order of the columns."""
        if self._rows == self._max_rows:
            self._file.close()
            self._file = self._next_file()
        self._writer.writerow([as_text(value) for value in row])
        self._rows += 1

    def __enter__(self) -> SheetFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
