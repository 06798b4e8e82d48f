"""assertions add, list: what people say about detections; no cluster needed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.assertion_files import read_assertions, remarks
    from archive.assertions import append, human_assertions
    from archive.tables import Tables
    from serve.settings import Settings

app = typer.Typer(
    help="What people say about detections: right, another label, nothing there, or missed. Only ever added.",
    no_args_is_help=True,
)
ACTIONS = ("keep", "relabel", "suppress", "add", "withdraw")


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            help="a table of 'resight export detections' with labels corrected (.csv, .parquet), or statements "
            "(.csv, .json, .jsonl), see docs/impact.md"
        ),
    ],
    by: Annotated[
        str | None,
        typer.Option(help="who made the corrections, or the statements without an actor"),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="time of rows that have none: 2026-05-14T09:30:00+02:00. Default of corrections: now"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check and count everything, and add nothing")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Add corrected labels, or statements, from a file: all, or none when a row is wrong.

    In a table, a changed label is a relabel; an empty one, or -, means that nothing is there. The same file again
    adds nothing. Example: resight assertions add checked.csv --by "Ana" --dry-run
    """
    tables = Tables(Settings().tables_url)
    read = read_assertions(tables, file, by, at)
    for words in remarks(tables, read.rows):
        note(words)
    actions = Counter(read.rows["action"].to_pylist())
    counts = {"unchanged": read.unchanged, "repeated": read.repeated}
    counts |= {action: actions[action] for action in ACTIONS}
    added = 0 if dry_run else append(tables, read.rows)
    print_facts({"file": str(file), **counts, "added": added}, fmt)
    if dry_run:
        note("nothing was added: leave out --dry-run")


@app.command("list")
def list_assertions(
    media: Annotated[str | None, typer.Option(help="sha256 of an image, or how it begins")] = None,
    label: Annotated[str | None, typer.Option(help="only with this label")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="also what a later statement took the place of")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """What people said, oldest first.

    Example: resight assertions list --label deer --format csv
    """
    found = human_assertions(Tables(Settings().tables_url), media, label, history)
    print_rows(found.to_pylist(), fmt, found.column_names)
