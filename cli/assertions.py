"""assertions add, list: what people say about detections; no cluster needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.output import Format, FormatOption, print_facts, print_rows
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.assertion_files import read_assertions
    from archive.assertions import append, human_assertions
    from archive.tables import Tables
    from serve.settings import Settings

app = typer.Typer(
    help="What people say about detections: right, another label, or nothing there. Only ever added.",
    no_args_is_help=True,
)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="a .csv, .json or .jsonl file, see docs/impact.md")],
    actor: Annotated[str | None, typer.Option(help="who said it, for rows that do not say")] = None,
    asserted_at: Annotated[
        str | None,
        typer.Option(help="when, for rows that do not say: 2026-05-14T09:30:00+02:00"),
    ] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Add statements from a file: all of them, or none when a row is wrong. The same file again adds none.

    Example: resight assertions add checked.csv --actor kim --asserted-at 2026-05-14T09:30:00Z
    """
    tables = Tables(Settings().tables_url)
    rows = read_assertions(tables, file, actor, asserted_at)
    added = append(tables, rows)
    print_facts({"file": str(file), "rows": len(rows), "added": added}, fmt)


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
