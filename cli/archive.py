"""The commands `ingest, sql, similar, compact`: the archive and its tables. Need no cluster."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated

import typer

from archive.defaults import DEFAULT_TEMPLATE, MAX_MIB, MIN_FILES, PRODUCTION, RELATIONS, TABLE_NAMES
from cli.follow import interruptible
from cli.output import EmbedderName, Format, FormatOption, errors, note, print_facts, print_rows
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from rich.progress import Progress

    from archive.catalogue.clips import Sampling
    from archive.catalogue.ingest import IngestReport, ingest
    from archive.catalogue.ingest import retire as retire_archive
    from archive.catalogue.roots import require_foreign
    from archive.delta.compact import compact, tidy
    from archive.delta.tables import Tables
    from archive.views.publications import unpublished, view_named, view_of_run
    from archive.views.query import query
    from archive.views.similar import SimilarOptions, SimilarSearch, rebuild_index
    from archive.views.views import View
    from batch.schedule.policy import policy_of
    from model_store.free_space import require_free_space
    from model_store.leftovers import remove_leftovers
    from serve.settings import Settings

app = typer.Typer()
OF_VIEW = re.compile(r"\b(results|detections|hidden|events|occurrences|clips)\b", re.IGNORECASE)
ViewOption = Annotated[str | None, typer.Option("--view", help="query the results of this view; default: production")]
RunOption = Annotated[
    str | None,
    typer.Option("--run", help="query all results of this run's inference key, with every score, published or not"),
]

MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory-mib",
        min=64,
        help="memory for joins and sorts in MiB; the rest spills to TMPDIR; default: half of the machine's memory",
    ),
]


@app.command("ingest")
def ingest_command(
    url: Annotated[str, typer.Argument(help="folder or s3://bucket/prefix")],
    template: Annotated[
        str | None,
        typer.Option(
            help="position of the camera in a path, for files without a serial number in EXIF; stored with the "
            f"archive; default: {DEFAULT_TEMPLATE}"
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            help="camera of every file without a serial number in EXIF, for the card of one camera; stored in place of "
            "the template"
        ),
    ] = None,
    verify: Annotated[bool, typer.Option(help="read and hash every file again")] = False,
    exiftool: Annotated[
        bool | None,
        typer.Option(
            help="read maker notes of camera traps with ExifTool, which must be installed: serial number, sequence, "
            "trigger, temperature, moon; stored with the archive, and a change reads every file again; default: as at "
            "its last ingest, at first not"
        ),
    ] = None,
    frames_per_second: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="catalogue video clips, and this many frames of each second as images; needs PyAV; 0: no clips; "
            "stored with the archive, and a change reads every clip again; default: as at its last ingest, at first 0",
        ),
    ] = None,
    min_change: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="leave out frames with nearly the brightness of the last one: by less than this fraction on average; "
            "decodes every clip; stored with --frames-per-second; default: 0, all frames",
        ),
    ] = None,
    retire: Annotated[
        bool, typer.Option("--retire", help="the archive is gone for good: leave its files out of runs")
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", help="mark missing files as missing, also when most files of a folder or camera are gone"
        ),
    ] = False,
    max_mib: Annotated[
        int, typer.Option(min=1, help="maximum size of a file in MiB; larger files are not read")
    ] = MAX_MIB,
    fmt: FormatOption = Format.table,
) -> None:
    """Catalogue an archive: read and hash every new or changed file. Safe to repeat.

    No image is decoded: a run finds files that are not images, and names them.
    Exit code 1 if files or folders could not be read, or if many files of a folder or camera are missing: is the disk
    mounted? All other files are ingested. Exit code 7 if the archive has no images.
    Example: resight ingest /data/deer
    """
    settings = Settings()
    tables = Tables(settings.new_tables_url)
    if retire:
        print_facts({"root": url, "retired": retire_archive(tables, url)}, fmt)
        return
    if min_change is not None and not frames_per_second:
        raise BadRequest("--min-change also needs --frames-per-second")
    if camera is not None:
        if template is not None:
            raise BadRequest("--camera and --template exclude each other")
        template = f"{{camera={camera}}}"
    sampling = None if frames_per_second is None else Sampling(frames_per_second, min_change or 0.0)
    report = catalogue(settings, tables, url, template, verify, max_mib, yes, exiftool, sampling)
    facts = asdict(report)
    if fmt is Format.table:  # the files are named below
        del facts["without_camera"]
        facts |= {name: len(facts[name]) for name in ("unreadable", "unlisted", "without_notes", "damaged_clips")}
    print_facts(facts, fmt)
    if not explained(report):
        raise typer.Exit(1)


def catalogue(
    settings: Settings,
    tables: Tables,
    url: str,
    template: str | None = None,
    verify: bool = False,
    max_mib: int = MAX_MIB,
    believe: bool = False,
    exiftool: bool | None = None,
    sampling: Sampling | None = None,
) -> IngestReport:
    """Ingest an archive with a progress bar; at Ctrl-C, exits with 130. Raises as `archive.catalogue.ingest.ingest`."""
    places = (settings.models_url, settings.tables_url, settings.snips_url)
    require_foreign(url, str(settings.home_path), places, settings.uploads_url)
    free_mib = policy_of(settings).stop.free_mib
    require_free_space(tables.url, free_mib, tables.url, "free_mib in [stop] of the policy")
    words = "interrupted; what was read is catalogued, and the same command does the rest"
    with interruptible(lambda: words), Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        report = ingest(
            tables,
            url,
            template,
            verify,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            max_mib=max_mib,
            believe=believe,
            exiftool=exiftool,
            sampling=sampling,
        )
    if former := settings.remember_tables():
        note(f"the tables are in {tables.url}; this home has used those in {former} before")
    return report


def explained(report: IngestReport) -> bool:
    """Note what was not catalogued and why; return whether everything was."""
    for path, why in list(report.unreadable.items())[:20]:
        note(f"unreadable: {path}: {why}")
    for path, why in list(report.without_notes.items())[:20]:
        note(f"catalogued without maker notes: {path}: {why}")
    for path, why in list(report.damaged_clips.items())[:20]:
        note(f"damaged clip: {path}: {why}")
    for folder, why in list(report.unlisted.items())[:20]:
        note(f"unreadable folder: {folder}: {why}; its files keep their rows")
    for place, files in list(report.withheld.items())[:20]:
        note(f"missing: {files} files of {place}; is a disk not mounted? Their rows are kept")
    if report.without_camera:
        note(
            f"no camera: {report.without_camera} files, without a serial number and outside the folders of the "
            "template: move them into a folder for each camera, or, if all files are of one camera, add --camera NAME; "
            'see: resight sql "select path from images where camera_id is null"'
        )
    if report.withheld:
        note("if they are gone for good: resight ingest --yes with the same archive")
    return not (report.unreadable or report.unlisted or report.withheld)


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help=f"DuckDB SQL. Relations: {', '.join(RELATIONS)}")],
    view: ViewOption = None,
    run: RunOption = None,
    allow_files: Annotated[
        bool,
        typer.Option(
            "--allow-files", help="let the statement read and write files, load extensions and change settings"
        ),
    ] = False,
    memory_mib: MemoryOption = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Query the tables with SQL. Results and detections are those of the published view.

    Example: resight sql "select label, count(*) from detections group by label" --format csv
    """
    tables = Tables(Settings().mounted_tables_url)
    chosen = chosen_view(tables, view, run)
    found = query(tables, statement, chosen, allow_files, memory_mib)
    try:
        rows = found.to_pylist()
    except OverflowError as error:
        raise BadRequest(f"{error}: cast times before year 1, after 9999 or infinite to varchar") from error
    print_rows(rows, fmt, found.column_names)
    note_unpublished(tables, chosen, statement)


@app.command()
def similar(
    detection: Annotated[
        str | None, typer.Argument(help="<media_sha256>-<rank>, as in 'embeddings' and names of snips")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="number of detections")] = 20,
    view: Annotated[str, typer.Option(help="view with the detections")] = PRODUCTION,
    embedder: EmbedderName = "",
    exact: Annotated[bool, typer.Option("--exact", help="compare every vector, also if there is an index")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="first make the index again, for a million vectors and more; needs FAISS")
    ] = False,
    within_s: Annotated[float, typer.Option(min=1, help="time limit of the search, s")] = 600.0,
    fmt: FormatOption = Format.table,
) -> None:
    """List the detections that look like one, nearest first, by the vectors of `resight embed`.

    From a million vectors on, an index in HOME/vectors finds most of them faster, if it has all rows of the table.
    Example: resight similar 32aca5d6f0c9…-0 --limit 5
    """
    if not detection and not rebuild:
        raise BadRequest("name a detection, or use --rebuild to make the index")
    settings = Settings()
    tables = Tables(settings.mounted_tables_url)
    options = {"view": view, "embedder": embedder, "limit": limit, "exact": exact}
    if rebuild:
        indexed, index = rebuild_index(tables, SimilarOptions(**options), settings.vectors_path)
        note(f"indexed {len(index)} vectors of {indexed.model}")
    if not detection:
        return
    search = SimilarSearch(detection=detection, folder=str(settings.vectors_path), **options)
    found = search.answer(tables, within_s)
    if found.note:
        note(found.note)
    names = ("cosine", "label", "score", "camera_id", "captured_at_corrected", "path", "detection_id")
    print_rows([{name: row[name] for name in names} for row in found.detections], fmt, names)


@app.command("compact")
def compact_command(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"tables to compact: {', '.join(TABLE_NAMES)}; default: all")
    ] = None,
    min_files: Annotated[int, typer.Option(min=2, help="small files from which a partition is compacted")] = MIN_FILES,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="also remove files that no snapshot of the last week needs")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Merge small files of the tables. Safe while runs, ingests and other processes write to them.

    Runs compact their own results. Example: resight compact --vacuum
    """
    unknown = sorted(set(names or ()) - set(TABLE_NAMES))
    if unknown:
        raise BadRequest(f"unknown table '{unknown[0]}': use one of {', '.join(TABLE_NAMES)}")
    tables = Tables(Settings().mounted_tables_url)
    rows = []
    for name in names or TABLE_NAMES:
        report = asdict(compact(tables, name, min_files=min_files))
        del report["partition"]
        rows.append(report | {"vacuumed": tidy(tables, name, vacuum)})
    if vacuum:
        remove_leftovers(tables.url)
    print_rows(rows, fmt)


def chosen_view(tables: Tables, view: str | None, run: str | None) -> View | None:
    """Return the requested view; None for the published production view. Raises BadRequest."""
    if view is not None and run is not None:
        raise BadRequest("--view and --run exclude each other")
    if run is not None:
        return view_of_run(tables, run)
    return None if view is None else view_named(tables, view)


def note_unpublished(tables: Tables, chosen: View | None, text: str) -> None:
    """Note that nothing is published if `text`, without another chosen view, names a relation of the published one."""
    if chosen is None and OF_VIEW.search(text) and (words := unpublished(tables)):
        note(words)
