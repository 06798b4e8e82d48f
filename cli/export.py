"""The commands `export, import`: relations to tables, images to files of other tools, and the results of other tools.

They need no cluster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from archive.defaults import RELATIONS
from archive.formats.file_formats import FORMATS
from batch.runs.options import takes_scope
from batch.runs.scope import MediaScope
from cli.archive import MemoryOption, RunOption, ViewOption, chosen_view, note_unpublished
from cli.output import Format, FormatOption, note, print_facts
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from archive.formats.export_file import export_file
    from archive.views.exports import export
    from archive.views.views import Views
    from batch.imports.import_results import import_results
    from batch.planning.plan import scope_files
    from batch.publishing.publish import labels_of
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer()
_LISTED = "; ".join(f"{fmt.name} ({fmt.description})" for fmt in FORMATS.values())


@app.command("export")
@takes_scope(MediaScope)
def export_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RELATION|FORMAT",
            help=f"relation to export: {', '.join(RELATIONS)}; or file format of other tools: {_LISTED}",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="file to write; of a relation, its name must end in .parquet or .csv; some formats are folders"
        ),
    ],
    scope: MediaScope,
    view: ViewOption = None,
    run: RunOption = None,
    floor: Annotated[
        float, typer.Option(min=0, max=1, help="of a format: leave out detections below this score")
    ] = 0.0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="option of the format; repeat it for several"),
    ] = None,
    memory_mib: MemoryOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the file if it exists, with all edits in it")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Write a relation to a Parquet or CSV file, or images with their detections in the format of another tool.

    The options of a scope choose the images of a format. The export is recorded in the table 'exports'.
    Example: resight export detections deer.parquet; or: resight export megadetector deer.json --camera north
    """
    if out.exists() and not overwrite:  # a person may have edited it since its export
        raise BadRequest(f"{out} exists: choose another name, or replace it with --overwrite")
    if what not in (*RELATIONS, *FORMATS):
        names = ", ".join((*RELATIONS, *FORMATS))
        raise BadRequest(f"unknown relation or format '{what}': use one of {names}")
    tables = Tables(Settings().mounted_tables_url)
    chosen = chosen_view(tables, view, run)
    if what not in FORMATS:
        if scope != MediaScope() or floor or settings:
            raise BadRequest(
                f"--camera and the other options of a scope, --floor and --set apply to {', '.join(FORMATS)}; for "
                "part of a relation use 'resight sql'"
            )
        rows = export(tables, what, out, chosen, memory_mib)
        print_facts({"relation": what, "rows": rows, "file": str(out)}, fmt)
        note_unpublished(tables, chosen, what)
        return
    chosen = chosen or Views(tables.url).current()
    counts = export_file(
        tables,
        FORMATS[what],
        out,
        chosen,
        files=scope_files(tables, scope, chosen) if scope != MediaScope() else None,
        floor=floor,
        labels=labels_of(ModelStore(Settings().models_url), chosen) if chosen else (),
        options=dict(map(_setting, settings or ())),
        memory_mib=memory_mib,
        narrowed_by=scope.model_dump(mode="json"),
    )
    reasons = counts.pop("reasons", [])
    print_facts({"format": what, **counts, "file": str(out)}, fmt)
    if not counts["images"]:
        note("the file has no image")
    if unseen := counts["images"] - counts.get("reviewed", counts["images"]):
        note(
            f"no person has made a statement about {unseen} of these images: their boxes are only the model's own; "
            "to export reviewed images only, list them with --ids: docs/guide/yolo.md"
        )
    for reason in reasons:
        note(f"left out: {reason}")


@app.command("import")
def import_command(
    tool: Annotated[
        Literal["megadetector", "speciesnet"],
        typer.Argument(help="the tool: MegaDetector (batch results) or SpeciesNet (predictions)"),
    ],
    file: Annotated[Path, typer.Argument(help="its file (.json)")],
    root: Annotated[str, typer.Option(help="folder to which the paths in the file are relative, catalogued")],
    name: Annotated[str, typer.Option(help="name of the model; default: the detector that the file names")] = "",
    classes: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="name a box by its best class if the class has this score or more; default: only by its category",
        ),
    ] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Import results of another tool as an external model version: viewed and compared, never served.

    The whole file is imported, or nothing if it is invalid; a second time adds nothing. With --classes, SpeciesNet's
    animals have the common name of their prediction. Example: resight import megadetector md.json --root /data/deer
    """
    settings = Settings()
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    found = import_results(tables, store, tool, file, root, name, classes)
    counts = found.counts
    facts = {
        "model": found.model,
        "run_id": found.run_id,
        "images": found.images,
        "matched": counts.requested,
        **{name: getattr(counts, name) for name in ("ok", "empty", "failed", "reused", "detections")},
        "hidden_boxes": found.hidden,
        "unmatched": {why: count for why, (count, _) in found.unmatched.items()},
    }
    print_facts(facts, fmt)
    for why, (count, path) in found.unmatched.items():
        note(f"left out: {count} {why}, such as {path}")
    note(f"to publish: resight runs publish {found.run_id}; to compare: resight runs diff published {found.run_id}")


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadRequest(f"invalid --set '{text}': use NAME=VALUE")
    return name.strip(), value
