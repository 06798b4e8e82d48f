"""The commands `deployments add, list, clock, history, revert, remove`. They need no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.annotations.deployment_file import add_file, read_deployments, remarks
    from archive.catalogue.deployments import all_rows, correct_clock, current, remove, revert
    from archive.catalogue.local_time import parse_local_time
    from archive.delta.tables import Tables
    from serve.settings import Settings

app = typer.Typer(
    help="Deployments: which camera was where, from when until when, and its clock. Append-only.", no_args_is_help=True
)
COLUMNS = (
    *("deployment_id", "camera_id", "location", "latitude", "longitude", "from_local", "until_local"),
    *("time_zone", "clock_offset_s", "clock_stated_by", "clock_reason", "notes", "actor"),
    "stated_at",
)
By = Annotated[str, typer.Option(help="name of the person who states this")]


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            help="table of deployments (.csv, .parquet, .json, .jsonl), or deployments.csv of Camtrap DP; see "
            "docs/reference/tables.md#deployments"
        ),
    ],
    by: By,
    time_zone: Annotated[
        str | None,
        typer.Option(
            help="zone in which the cameras' clocks were set, for Camtrap DP: Europe/Berlin or +02:00; default: the "
            "offset of each start in the file"
        ),
    ] = None,
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
    deployments = read_deployments(file, time_zone, current(tables))
    for remark in remarks(tables, deployments):
        note(remark)
    changed = 0 if dry_run else add_file(tables, file, by, time_zone)[1]
    print_facts({"file": str(file), "deployments": len(deployments), "changed": changed}, fmt)
    if dry_run:
        note("nothing was added: leave out --dry-run")


app.command(
    "import",
    help="Add deployments, the same as 'deployments add'. Example: resight deployments import deployments.csv --by Ana",
)(add)


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


@app.command()
def clock(
    deployment: Annotated[str, typer.Argument(help="id of a deployment")],
    by: By,
    reason: Annotated[str, typer.Option(help="reason for this offset")] = "",
    offset_s: Annotated[
        int | None, typer.Option(help="seconds to add to the camera's time; 0: the clock is checked and right")
    ] = None,
    showed: Annotated[str | None, typer.Option(help="time that the camera showed: 2026-05-01T12:00")] = None,
    right: Annotated[str | None, typer.Option(help="right time at that moment")] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Correct the clock of a deployment. The camera's own times stay as they are; queries show both.

    Example: resight deployments clock 4f0c2a91d07b3e55 --showed 2026-05-01T11:00 --right 2026-05-01T12:00
    --reason "summer time was not set" --by "Ana"
    """
    if (offset_s is None) == (showed is None) or (showed is None) != (right is None):
        raise BadRequest("give either --offset-s, or both --showed and --right")
    if showed and right:
        try:
            difference = parse_local_time(right) - parse_local_time(showed)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        offset_s = round(difference.total_seconds())
    assert offset_s is not None
    changed = correct_clock(Tables(Settings().mounted_tables_url), deployment, offset_s, reason, by)
    facts = {"deployment_id": deployment, "clock_offset_s": offset_s, "changed": int(changed)}
    print_facts(facts, fmt)


@app.command("history")
def list_changes(
    camera: Annotated[str | None, typer.Option(help="only deployments of this camera")] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """List all statements about deployments, oldest first. Example: resight deployments history --camera north"""
    rows = [
        {"change": row["change"], "deployment_id": row["fact_id"], "deleted": row["deleted"]}
        | {name: row[name] for name in COLUMNS[1:]}
        for row in all_rows(Tables(Settings().mounted_tables_url).existing("deployments"))
        if row["kind"] == "deployment" and camera in (None, row["camera_id"])
    ]
    print_rows(rows, fmt, ("change", "deployment_id", "deleted", *COLUMNS[1:]))


@app.command("revert")
def revert_change(
    change: Annotated[int, typer.Argument(help="number of a change, as in 'deployments history'")],
    by: By,
    fmt: FormatOption = Format.table,
) -> None:
    """State a deployment again as an earlier change stated it, also one that was removed: this undoes later changes.

    Example: resight deployments revert 3 --by "Ana"
    """
    tables = Tables(Settings().mounted_tables_url)
    print_facts({"restored": revert(tables, change, by)}, fmt)


@app.command("remove")
def remove_deployments(
    deployment: Annotated[list[str], typer.Argument(help="id of a deployment; several are allowed")],
    by: By,
    fmt: FormatOption = Format.table,
) -> None:
    """Remove deployments; their rows stay, and adding them again restores them.

    Example: resight deployments remove 4f0c2a91d07b3e55 --by "Ana"
    """
    tables = Tables(Settings().mounted_tables_url)
    print_facts({"removed": remove(tables, "deployment", deployment, by)}, fmt)
