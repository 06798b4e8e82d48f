"""Print rows as a table for people, or as JSON or CSV for programs; notes and errors go to standard error.

A command replaces no file of another program: `require_own`.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from model_store.errors import BadRequest


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"


ViewName = Annotated[str, typer.Option("--view", help="name of the view")]
EmbedderName = Annotated[
    str, typer.Option("--embedder", help="embedder_key, its first digits, or name@version; default: the only one")
]
FormatOption = Annotated[Format, typer.Option("--format", help="output format; json and csv are for programs")]
HereOption = Annotated[bool, typer.Option("--here", help="run on this machine, also if a cluster is up")]

WIDEST = 100_000
"""Maximum width in characters of a table outside a terminal; no cell is cut or wrapped there."""
MOST_ITEMS = 8
"""Items of a list that a cell of a table in a terminal shows."""

console = Console(emoji=False)
errors = Console(stderr=True, emoji=False)


def note(text: str) -> None:
    """Print a note for people to standard error."""
    errors.print(text, highlight=False, markup=False, soft_wrap=True)


def print_rows(rows: Sequence[Mapping[str, Any]], fmt: Format, columns: Sequence[str] = ()) -> None:
    """Print rows; `columns` is the header if `rows` is empty.

    A table that is wider than the terminal is printed as a block of lines for each row, without empty values.
    """
    names = list(rows[0]) if rows else list(columns)
    if fmt is Format.json:
        print(_json(list(rows)))
    elif fmt is Format.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_plain(row[name]) for name in names] for row in rows)
    else:
        most = MOST_ITEMS if console.is_terminal else None
        cells = [{name: _short(row[name], most) for name in names} for row in rows]
        table = Table(*map(escape, names), box=None, header_style="bold", pad_edge=False)
        for row in cells:
            table.add_row(*map(escape, row.values()))
        wide = Console(width=WIDEST, emoji=False)  # in files and pipes, cells are neither cut nor wrapped
        fits = Measurement.get(wide, wide.options, table).maximum <= console.width
        if not console.is_terminal or fits:
            (console if console.is_terminal else wide).print(table)
        for row in cells if console.is_terminal and not fits else ():
            print_facts({name: text for name, text in row.items() if text}, fmt)
            console.print()


def print_facts(facts: Mapping[str, Any], fmt: Format) -> None:
    """Print one record: a line for each field, one JSON object, or one CSV row."""
    if fmt is Format.json:
        print(_json(dict(facts)))
    elif fmt is Format.csv:
        print_rows([facts], fmt)
    else:
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            line = f"{name.ljust(width)}  {in_words(value)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _json(value: object) -> str:
    """Return JSON; in files and pipes it is one line, so that logs can be searched by lines."""
    return _dumps(value, 1 if console.is_terminal else None)


def _dumps(value: object, indent: int | None = None) -> str:
    """Return JSON with null for NaN and infinity, which JSON lacks."""
    try:
        return json.dumps(value, default=_json_value, indent=indent, allow_nan=False)
    except ValueError:
        text = json.dumps(value, default=_json_value)
        return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=indent)


def _json_value(value: object) -> object:
    """Convert a Decimal, which DuckDB returns for sums of integers, to a number, and other values to text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def _plain(value: object) -> object:
    if value is None:
        return ""
    return _dumps(value) if isinstance(value, dict | list | tuple) else value


def in_words(value: object) -> str:
    """Format a value for people: `a 1, b 2` for a mapping, `120 (80 to 160)` for a number with its interval."""
    match value:
        case None:
            return ""
        case {"expected": expected, "low": low, "high": high}:
            return f"{expected:.0f} ({low:.0f} to {high:.0f})"
        case Mapping():
            pairs = [(key, in_words(part), part) for key, part in value.items() if part is not None]
            words = [
                f"{k} ({w})" if isinstance(part, Mapping) and "low" not in part else f"{k} {w}" for k, w, part in pairs
            ]
            return ", ".join(words) or "none"
        case list() | tuple():
            return ", ".join(map(in_words, value)) or "none"
        case _:
            return str(value)


def _short(value: object, most: int | None = None) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, list) and most is not None and len(value) > most:
        return f"{in_words(value[:most])}, … ({len(value)}; all with --format json)"
    return in_words(value)


def require_own(path: Path, mark: bytes) -> None:
    """Raise BadRequest for an existing file without `mark` in its first 4 KiB: this program did not write it."""
    try:
        with path.open("rb") as file:
            is_own = mark in file.read(4096)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise BadRequest(f"cannot replace {path}: {error.strerror}; choose another place") from error
    if not is_own:
        raise BadRequest(f"{path} exists, and resight did not write it: choose another place")
