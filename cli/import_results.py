"""The commands `import megadetector, speciesnet`: results of other tools. They need no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.output import Format, FormatOption, note, print_facts
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from archive.formats.results_file import Tool
    from batch.imports.import_results import import_results
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer(
    help="Results that other tools made, as external model versions: viewed and compared, never served.",
    no_args_is_help=True,
)
RootOption = Annotated[
    str,
    typer.Option("--root", help="folder to which the paths in the file are relative, catalogued"),
]
NameOption = Annotated[
    str, typer.Option("--name", help="name of the model; default: the detector that the file names")
]
ClassOption = Annotated[
    float | None,
    typer.Option(
        "--classes",
        min=0,
        max=1,
        help="name a box by its best class if the class has this score or more; default: only by its category",
    ),
]


@app.command()
def megadetector(
    file: Annotated[Path, typer.Argument(help="MegaDetector's batch results (.json)")],
    root: RootOption,
    name: NameOption = "",
    classes: ClassOption = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Import MegaDetector's batch results: all of the file, or nothing if it is invalid.

    Importing a file again adds nothing. Example: resight import megadetector md.json --root /data/deer
    """
    _import("megadetector", file, root, name, classes, fmt)


@app.command()
def speciesnet(
    file: Annotated[Path, typer.Argument(help="SpeciesNet's predictions (.json)")],
    root: RootOption,
    name: NameOption = "",
    classes: ClassOption = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Import SpeciesNet's predictions: all of the file, or nothing if it is invalid.

    With --classes, boxes of animals have the common name of the image's prediction. Importing a file again adds
    nothing. Example: resight import speciesnet predictions.json --root /data/deer --classes 0.65
    """
    _import("speciesnet", file, root, name, classes, fmt)


def _import(
    tool: Tool, file: Path, root: str, name: str, classes: float | None, fmt: Format
) -> None:
    settings = Settings()
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    found = import_results(tables, store, tool, file, root, name, classes)
    counts = found.counts
    facts = {"model": found.model, "run_id": found.run_id, "images": found.images}
    facts |= {"matched": counts.requested, "ok": counts.ok, "empty": counts.empty}
    facts |= {"failed": counts.failed, "reused": counts.reused, "detections": counts.detections}
    unmatched = {why: count for why, (count, _) in found.unmatched.items()}
    print_facts(facts | {"hidden_boxes": found.hidden, "unmatched": unmatched}, fmt)
    for why, (count, path) in found.unmatched.items():
        note(f"left out: {count} {why}, such as {path}")
    note(
        f"to publish: resight runs publish {found.run_id}; to compare: resight runs diff published {found.run_id}"
    )
