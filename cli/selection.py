"""The command `select`: the images to look at next. Needs no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from archive.defaults import PRODUCTION
from cli.archive import MemoryOption
from cli.output import Format, FormatOption, note, print_rows
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from archive.views.selection import Selection, select
    from serve.settings import Settings

app = typer.Typer()


@app.command("select")
def select_command(
    count: Annotated[int, typer.Option(min=1, max=100_000, help="number of images")] = 100,
    by: Annotated[str, typer.Option(help="reasons in their order: uncertain, rare, random")] = "uncertain,rare",
    seed: Annotated[int, typer.Option(help="another seed gives another random selection")] = 0,
    view: Annotated[str, typer.Option(help="view with the results")] = PRODUCTION,
    out: Annotated[Path | None, typer.Option(help="also write the ids to this file, for --ids of a scope")] = None,
    memory_mib: MemoryOption = None,
    fmt: FormatOption = Format.table,
) -> None:
    """List the images that a person should look at next, with the reason of each.

    Images with a person's statement are left out. Example: resight select --count 50 --out next.txt
    """
    if out and out.exists():
        raise BadRequest(f"{out} exists: choose another name")
    try:
        wanted = Selection(view=view, count=count, by=tuple(by.split(",")), seed=seed)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        raise BadRequest(f"unknown reason in --by '{by}': use uncertain, rare, random") from error
    rows = select(Tables(Settings().mounted_tables_url), wanted, memory_mib).to_pylist()
    names = ("reason", "value", "camera_id", "path", "media_sha256")
    print_rows([{name: row[name] for name in names} for row in rows], fmt, names)
    if out:
        out.write_text("".join(f"{row['media_sha256']}\n" for row in rows))
        note(f"to label: resight export label-studio tasks.json --ids {out}")
