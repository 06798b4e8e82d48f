"""The commands `deployments add, list, remove`: which camera was where, and when. Needs no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.annotations.deployment_file import add_file, read_deployments, remarks
    from archive.catalogue.deployments import current, remove
    from archive.delta.tables import Tables
    from serve.settings import Settings

app = typer.Typer(
    help="Deployments: which camera was where, from when until when, and its clock. Append-only.",
    no_args_is_help=True,
)
COLUMNS = (
    *(
        "deployment_id",
        "camera_id",
        "location",
        "latitude",
        "longitude",
        "from_local",
        "until_local",
    ),
    *("time_zone", "clock_offset_s", "clock_stated_by", "notes", "actor", "stated_at"),
)
By = Annotated[str, typer.Option(help="name of the person who states this")]


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            help="table of deployments (.csv, .parquet, .json, .jsonl); see docs/reference/tables.md#deployments"
        ),
    ],
    by: By,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check each row, without overlaps, and add nothing")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Add or correct deployments from a file: all rows, or none if one is invalid.

    A row corrects the deployment of the same camera and from_local, or of its deployment_id. Adding a file again adds
    nothing. Example: resight deployments add cameras.csv --by "Ana"
    """
    tables = Tables(Settings().new_tables_url)
    deployments = read_deployments(file)
    for remark in remarks(tables, deployments):
        note(remark)
    changed = 0 if dry_run else add_file(tables, file, by)[1]
    print_facts({"file": str(file), "deployments": len(deployments), "changed": changed}, fmt)
    if dry_run:
        note("nothing was added: leave out --dry-run")


@app.command("list")
def list_deployments(
    camera: Annotated[str | None, typer.Option(help="only deployments of this camera")] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """List the valid deployments, by camera and time. Example: resight deployments list --format csv"""
    rows = [
        {"deployment_id": row["fact_id"]} | {name: row[name] for name in COLUMNS[1:]}
        for (kind, _), row in current(Tables(Settings().mounted_tables_url)).items()
        if kind == "deployment" and camera in (None, row["camera_id"])
    ]
    print_rows(sorted(rows, key=lambda r: (r["camera_id"], r["from_local"])), fmt, COLUMNS)


@app.command("remove")
def remove_deployments(
    deployment: Annotated[
        list[str], typer.Argument(help="id of a deployment; several are allowed")
    ],
    by: By,
    fmt: FormatOption = Format.table,
) -> None:
    """Remove deployments; their rows stay, and adding them again restores them.

    Example: resight deployments remove 4f0c2a91d07b3e55 --by "Ana"
    """
    tables = Tables(Settings().mounted_tables_url)
    print_facts({"removed": remove(tables, "deployment", deployment, by)}, fmt)
