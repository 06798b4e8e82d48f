"""Rows of files that people write or edit: .csv, .json (a list), .jsonl and .parquet.

file --read_rows--> a list of dicts; of JSON, of anything
CSV is read as spreadsheets save it: with a byte order mark, commas, semicolons or tabs, and empty columns at the end.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model_store.errors import BadRequest

_SEPARATORS = ",;\t"


def read_rows(file: Path) -> list[Any]:
    """Raises BadRequest if it is not such a file."""
    try:
        match file.suffix.lower():
            case ".csv":
                return list(_csv(file.read_bytes().decode("utf-8-sig")))
            case ".jsonl":
                lines = file.read_text("utf-8-sig").split("\n")
                return [json.loads(line) for line in lines if line.strip()]
            case ".json":
                rows = json.loads(file.read_text("utf-8-sig"))
                if isinstance(rows, list):
                    return rows
                raise ValueError("it must be a list of objects")
            case ".parquet":
                return pq.read_table(file).to_pylist()
            case _:
                raise ValueError("its name must end in .csv, .parquet, .json or .jsonl")
    except UnicodeDecodeError as error:
        raise BadRequest(f"cannot read {file}: not UTF-8; save it as 'CSV UTF-8'") from error
    except (OSError, ValueError, csv.Error, RecursionError, pa.ArrowException) as error:
        raise BadRequest(f"cannot read {file}: {error}") from error


def _csv(text: str) -> Iterator[dict[str | None, Any]]:
    header = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=header.count)
    for row in csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=separator):
        nameless = [name for name in row if not name and not any(row[name] or ())]
        yield {name: value for name, value in row.items() if name not in nameless}
