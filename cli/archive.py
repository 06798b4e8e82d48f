"""ingest, sql, export, compact: the archive and its tables; no cluster needed."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from archive.defaults import DEFAULT_TEMPLATE, MAX_MIB, MIN_FILES, RELATIONS, TABLE_NAMES
from cli.output import Format, FormatOption, errors, note, print_facts, print_rows
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from rich.progress import Progress

    from archive.compact import compact, tidy
    from archive.exports import export
    from archive.ingest import IngestReport, ingest
    from archive.ingest import retire as retire_archive
    from archive.publications import unpublished, view_named, view_of_run
    from archive.query import query
    from archive.roots import require_foreign
    from archive.tables import Tables
    from archive.views import View
    from serve.settings import Settings

_OF_VIEW = re.compile(r"\b(results|detections|hidden|events|occurrences)\b", re.IGNORECASE)
ViewOption = Annotated[
    str | None,
    typer.Option("--view", help="results and detections of this view, not of production"),
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", help="… of this run's inference key, with every score, published or not"),
]

MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory-mib",
        min=64,
        help="memory of joins and sorts; the rest is on disk, below TMPDIR. Default: half of the machine's",
    ),
]


def register(app: typer.Typer) -> None:
    app.command("ingest")(ingest_command)
    app.command("sql")(sql)
    app.command("export")(export_command)
    app.command("compact")(compact_command)


def ingest_command(
    url: Annotated[str, typer.Argument(help="a folder, or s3://bucket/prefix")],
    template: Annotated[
        str | None,
        typer.Option(
            help="where a path names its camera, when EXIF has no serial number; kept for the next time. "
            f"Default: {DEFAULT_TEMPLATE}"
        ),
    ] = None,
    verify: Annotated[bool, typer.Option(help="read and hash every file again")] = False,
    retire: Annotated[
        bool, typer.Option("--retire", help="gone for good: leave its files out of runs")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="mark files as missing, however many of a place are gone")
    ] = False,
    max_mib: Annotated[
        int, typer.Option(min=1, help="size of a file in MiB above which it is not read")
    ] = MAX_MIB,
    fmt: FormatOption = Format.table,
) -> None:
    """Catalogue an archive: what is new or changed is read, hashed and described. Safe to repeat.

    Exit code 1 when files or folders could not be read, or when so many files of one folder or camera are gone
    that a disk may not be mounted; all others are ingested. Exit code 7 when the archive has no image at all.
    Example: resight ingest /data/deer
    """
    settings = Settings()
    tables = Tables(settings.new_tables_url)
    if retire:
        print_facts({"root": url, "retired": retire_archive(tables, url)}, fmt)
        return
    places = (settings.models_url, settings.tables_url, settings.snips_url)
    require_foreign(url, str(settings.home_path), places, settings.uploads_url)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        report = ingest(
            tables,
            url,
            template,
            verify,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            max_mib=max_mib,
            believe=yes,
        )
    print_facts(asdict(report), fmt)
    _explain(report)


def _explain(report: IngestReport) -> None:
    for path, why in list(report.unreadable.items())[:20]:
        note(f"unreadable: {path}: {why}")
    for folder, why in list(report.unlisted.items())[:20]:
        note(f"unreadable folder: {folder}: {why}; its files stay as they were")
    for place, files in list(report.withheld.items())[:20]:
        note(f"not there: {files} files of {place}; is a disk not mounted? They stay as they were")
    if report.withheld:
        note("If they are gone for good: resight ingest --yes with the same archive")
    if report.unreadable or report.unlisted or report.withheld:
        raise typer.Exit(1)


def sql(
    statement: Annotated[str, typer.Argument(help=f"DuckDB SQL over {', '.join(RELATIONS)}")],
    view: ViewOption = None,
    run: RunOption = None,
    allow_files: Annotated[
        bool,
        typer.Option(
            "--allow-files",
            help="let the statement read and write files, load extensions and change settings",
        ),
    ] = False,
    memory_mib: MemoryOption = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Query the tables. Results and detections are those of the published view.

    Example: resight sql "select label, count(*) from detections group by label" --format csv
    """
    tables = Tables(Settings().tables_url)
    chosen = _chosen(tables, view, run)
    found = query(tables, statement, chosen, allow_files, memory_mib)
    print_rows(found.to_pylist(), fmt, found.column_names)
    if chosen is None and _OF_VIEW.search(statement):
        _say_what_is_missing(tables)


def export_command(
    relation: Annotated[str, typer.Argument(help=", ".join(RELATIONS))],
    out: Annotated[Path, typer.Argument(help="a name that ends in .parquet or .csv")],
    view: ViewOption = None,
    run: RunOption = None,
    memory_mib: MemoryOption = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Write a relation to a file that other programs open. The table 'exports' keeps a record of it.

    Example: resight export detections deer.parquet
    """
    tables = Tables(Settings().tables_url)
    chosen = _chosen(tables, view, run)
    rows = export(tables, relation, out, chosen, memory_mib)
    print_facts({"relation": relation, "rows": rows, "file": str(out)}, fmt)
    if chosen is None and _OF_VIEW.search(relation):
        _say_what_is_missing(tables)


def compact_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"which: {', '.join(TABLE_NAMES)}; all of them if none"),
    ] = None,
    min_files: Annotated[
        int, typer.Option(min=2, help="leave alone what has fewer small files than this")
    ] = MIN_FILES,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="remove files that no reader of the last week needs")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Put the small files of the tables together. Safe while runs, ingests and others write to them.

    Runs do it for their own results. Example: resight compact --vacuum
    """
    unknown = sorted(set(names or ()) - set(TABLE_NAMES))
    if unknown:
        raise BadRequest(f"no table '{unknown[0]}'; there is: {', '.join(TABLE_NAMES)}")
    tables = Tables(Settings().tables_url)
    rows = []
    for name in names or TABLE_NAMES:
        report = asdict(compact(tables, name, min_files=min_files))
        del report["partition"]
        rows.append(report | {"vacuumed": tidy(tables, name, vacuum)})
    print_rows(rows, fmt)


def _chosen(tables: Tables, view: str | None, run: str | None) -> View | None:
    """None: what is published as production, if anything is. Raises BadRequest."""
    if view is not None and run is not None:
        raise BadRequest("--view and --run exclude each other")
    if run is not None:
        return view_of_run(tables, run)
    return None if view is None else view_named(tables, view)


def _say_what_is_missing(tables: Tables) -> None:
    words = unpublished(tables)
    if words:
        note(words)
