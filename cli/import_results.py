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
