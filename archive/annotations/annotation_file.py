"""Read files that people write or edit, and parse their rows as statements about detections.

.csv, .json (a list), .jsonl or .parquet --read_rows--> a list of dicts; from JSON, a list of any values
rows --read_statements--> statements by row number, errors by row number. Nothing is looked up in the tables.
CSV may have the variations of spreadsheets: a byte order mark, commas, semicolons or tabs, empty rows and columns at
the end; except with commas between columns, boxes and coordinates may have decimal commas.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator

from model_store.errors import BadRequest
from model_store.frozen import Frozen

DIGEST = r"^[0-9a-f]{64}$"
BOX = ("x1_px", "y1_px", "x2_px", "y2_px")
DECIMALS = (*BOX, "latitude", "longitude")
"""Columns that may have decimal commas."""
Named = Annotated[str, StringConstraints(min_length=1)]
_SEPARATORS = ",;\t"


def _parse_time(value: object) -> datetime:
    """Return a time in UTC. Raises ValueError for a number, and for a time without an offset from UTC."""
    time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    if time.tzinfo is None:
        raise ValueError(f"invalid time '{value}': add the offset from UTC, as in 2026-05-14T09:30:00+02:00")
    return time.astimezone(UTC)


class Statement(Frozen):
    """A person's statement about a box, or about a whole image (flag; suppress or withdraw without a box)."""

    action: Literal["keep", "relabel", "suppress", "add", "withdraw", "flag"]
    media_sha256: str | None = Field(default=None, pattern=DIGEST)
    path: str | None = None
    source_root: str | None = None
    label: Annotated[str, StringConstraints(strip_whitespace=True)] | None = None
    x1_px: float | None = None
    y1_px: float | None = None
    x2_px: float | None = None
    y2_px: float | None = None
    inference_key: str | None = None
    rank: int | None = Field(default=None, ge=0)
    actor: Named
    asserted_at: Annotated[datetime, BeforeValidator(_parse_time)]
    reason: str | None = None

    @property
    def box(self) -> dict[str, float] | None:
        return None if self.x1_px is None else {name: getattr(self, name) for name in BOX}

    @model_validator(mode="after")
    def _consistent(self) -> Statement:
        if (self.media_sha256 is None) == (self.path is None):
            raise ValueError("name the image either by media_sha256 or by path")
        if (self.inference_key is None) != (self.rank is None):
            raise ValueError("inference_key and rank must be given together: they identify a detection")
        corners = [getattr(self, name) for name in BOX]
        if len({corner is None for corner in corners}) > 1:
            raise ValueError(f"a box needs all of {', '.join(BOX)}")
        if self.box and not (corners[0] < corners[2] and corners[1] < corners[3]):
            raise ValueError("a box needs x1_px < x2_px and y1_px < y2_px")
        of_image = self.box is None and self.rank is None
        if self.action == "add" and (self.box is None or self.rank is not None):
            raise ValueError("add needs the box of an animal without a detection, and no rank")
        if self.action == "flag" and not of_image:
            raise ValueError("flag applies to the whole image: remove the box, inference_key and rank")
        if self.action in ("keep", "relabel") and of_image:
            raise ValueError(f"{self.action} needs a box, or inference_key and rank of a detection")
        if self.label and of_image:
            raise ValueError(
                f"{self.action} without a box applies to the whole image: remove the label, or name one detection by "
                "inference_key and rank"
            )
        if self.action in ("relabel", "add") and not self.label:
            raise ValueError(f"{self.action} needs the correct label")
        return self


def read_statements(
    rows: Sequence[object], defaults: Mapping[str, str | None]
) -> tuple[dict[int, Statement], dict[int, str]]:
    """Return the statements, and the errors of invalid rows, by row number (from 1, without the header).

    `defaults` fill the fields that a row leaves out.
    """
    statements: dict[int, Statement] = {}
    errors: dict[int, str] = {}
    for number, row in enumerate(rows, 1):
        try:
            statements[number] = Statement.model_validate(given_fields(row, defaults))
        except ValidationError as error:
            errors[number] = words(error)
        except ValueError as error:
            errors[number] = str(error)
    return statements, errors


def given_fields(row: object, defaults: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the row with defaults and without empty fields, so that CSV and JSON give the same."""
    if not isinstance(row, dict):
        raise ValueError("it must be an object with a value for each field")
    if None in row:
        raise ValueError("it has more fields than the header")
    given = {str(name): value for name, value in row.items() if value not in (None, "")}
    return {name: value for name, value in defaults.items() if value} | given


def words(error: ValidationError) -> str:
    """Return the message for an invalid row, with the values."""
    parts: list[str] = []
    for item in error.errors():
        where, value = ".".join(map(str, item["loc"])), item["input"]
        why = item["msg"].removeprefix("Value error, ")
        if item["type"] == "string_pattern_mismatch":
            why = "not 64 hex digits"
        if item["type"] == "missing":
            why = "missing" + ("; add the column, or give --by" if where == "actor" else "")
        elif where:
            where = f"{where} {value!r}"
        parts.append(f"{where}: {why}" if where else why)
    return "; ".join(parts)


def read_rows(file: Path) -> list[Any]:
    """Return the rows of a file. Raises BadRequest if it cannot be read, or has another format."""
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
    if separator not in header and re.search("[|:]", header):
        raise ValueError("its columns must be separated by commas, semicolons or tabs")
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    for row in (row for row in rows if any(row.values())):
        unnamed = [name for name in row if not name and not any(row[name] or ())]
        commas = () if separator == "," else DECIMALS
        yield {
            name: _with_point(value) if name in commas else value for name, value in row.items() if name not in unnamed
        }


def _with_point(value: Any) -> Any:
    """Return a number with a decimal comma, as spreadsheets of many countries write it, with a point."""
    is_decimal = isinstance(value, str) and re.fullmatch(r"\s*-?\d+,\d+\s*", value)
    return value.replace(",", ".") if is_decimal else value
