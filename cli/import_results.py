"""The command `import`: results of other tools. It needs no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.output import Format, FormatOption, note, print_facts
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from batch.imports.import_results import import_results
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer()
RootOption = Annotated[
    str, typer.Option("--root", help="folder to which the paths in the file are relative, catalogued")
]
NameOption = Annotated[str, typer.Option("--name", help="name of the model; default: the detector that the file names")]
ClassOption = Annotated[
    float | None,
    typer.Option(
        "--classes",
        min=0,
        max=1,
        help="name a box by its best class if the class has this score or more; default: only by its category",
    ),
]


@app.command("import")
def import_command(
    tool: Annotated[
        Literal["megadetector", "speciesnet"],
        typer.Argument(help="the tool: MegaDetector (batch results) or SpeciesNet (predictions)"),
    ],
    file: Annotated[Path, typer.Argument(help="its file (.json)")],
    root: RootOption,
    name: NameOption = "",
    classes: ClassOption = None,
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
    facts = {"model": found.model, "run_id": found.run_id, "images": found.images}
    facts |= {"matched": counts.requested, "ok": counts.ok, "empty": counts.empty}
    facts |= {"failed": counts.failed, "reused": counts.reused, "detections": counts.detections}
    unmatched = {why: count for why, (count, _) in found.unmatched.items()}
    print_facts(facts | {"hidden_boxes": found.hidden, "unmatched": unmatched}, fmt)
    for why, (count, path) in found.unmatched.items():
        note(f"left out: {count} {why}, such as {path}")
    note(f"to publish: resight runs publish {found.run_id}; to compare: resight runs diff published {found.run_id}")
