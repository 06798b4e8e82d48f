"""ingest, sql, export: the archive and its tables; no cluster needed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from archive.exports import VIEWS, export
from archive.ingest import IngestReport, ingest
from archive.ingest import retire as retire_archive
from archive.media import DEFAULT_TEMPLATE
from archive.query import query
from archive.tables import Tables
from cli.output import Format, FormatOption, errors, note, print_facts, print_rows
from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("ingest")(ingest_command)
    app.command("sql")(sql)
    app.command("export")(export_command)


def ingest_command(
    url: Annotated[str, typer.Argument(help="a folder, or s3://bucket/prefix")],
    template: Annotated[
        str, typer.Option(help="where a path names its camera, when EXIF has no serial number")
    ] = DEFAULT_TEMPLATE,
    verify: Annotated[bool, typer.Option(help="read and hash every file again")] = False,
    retire: Annotated[
        bool, typer.Option("--retire", help="gone for good: leave its files out of runs")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Catalogue an archive: what is new or changed is read, hashed and described. Safe to repeat.

    Exit code 1 when some files could not be read. Example: resight ingest /data/deer
    """
    if retire:
        print_facts(
            {"root": url, "retired": retire_archive(Tables(Settings().tables_url), url)}, fmt
        )
        return
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        report = ingest(
            Tables(Settings().tables_url),
            url,
            template,
            verify,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_facts(asdict(report), fmt)
    _explain(report)


def _explain(report: IngestReport) -> None:
    for path, why in list(report.unreadable.items())[:20]:
        note(f"unreadable: {path}: {why}")
    if report.unreadable:
        raise typer.Exit(1)


def sql(
    statement: Annotated[
        str, typer.Argument(help="DuckDB SQL over media, results, detections, runs")
    ],
    fmt: FormatOption = Format.table,
) -> None:
    """Ask the tables anything.

    Example: resight sql "select label, count(*) from detections group by label" --format csv
    """
    found = query(Tables(Settings().tables_url), statement)
    print_rows(found.to_pylist(), fmt, found.column_names)


def export_command(
    view: Annotated[str, typer.Argument(help=", ".join(VIEWS))],
    out: Annotated[Path, typer.Argument(help="a name that ends in .parquet or .csv")],
    fmt: FormatOption = Format.table,
) -> None:
    """Write a view to a file that other programs open.

    Example: resight export detections deer.parquet
    """
    print_facts(
        {"view": view, "rows": export(Tables(Settings().tables_url), view, out), "file": str(out)},
        fmt,
    )
