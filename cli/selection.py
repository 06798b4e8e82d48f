"""The command `select`: the images to look at next. Needs no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archive.defaults import PRODUCTION
from batch.runs.options import takes_scope
from batch.runs.scope import MediaScope
from cli.archive import MemoryOption
from cli.output import Format, FormatOption, ViewName, note, print_rows
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.delta.tables import Tables
    from batch.publishing.selection import Selection, reasons, select
    from model_store.store import ModelStore
    from serve.settings import Settings

app = typer.Typer()
COLUMNS = ("reason", "value", "camera_id", "path", "media_sha256")
EmbedderName = Annotated[
    str, typer.Option(help="embedder_key, its first digits, or name@version; default: the only one")
]
Seed = Annotated[int, typer.Option(help="another seed gives another random order of the images")]


@app.command("select")
@takes_scope(MediaScope)
def select_command(
    scope: MediaScope,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="number of images")] = 100,
    by: Annotated[
        str, typer.Option(help="reasons in their order: uncertain, rare, disagree, diverse, random")
    ] = "uncertain,rare",
    against: Annotated[
        str, typer.Option(help="of disagree: results to compare with, a run id, name@version or view")
    ] = "",
    embedder: EmbedderName = "",
    seed: Seed = 0,
    view: ViewName = PRODUCTION,
    out: Annotated[Path | None, typer.Option(help="also write the ids to this new file, for --ids of a scope")] = None,
    memory_mib: MemoryOption = None,
    fmt: FormatOption = Format.table,
) -> None:
    """List the images that a person should look at next, with the reason of each.

    Images with a person's statement are left out. Example: resight select --count 50 --out next.txt
    """
    if out and out.exists():
        raise BadRequest(f"{out} exists: choose another name")
    settings = Settings()
    wanted = Selection(view=view, count=count, by=reasons(by), seed=seed, against=against, embedder=embedder)
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    rows = select(tables, store, scope, wanted, memory_mib).to_pylist()
    print_rows([{name: row[name] for name in COLUMNS} for row in rows], fmt, COLUMNS)
    if not rows:
        note("nothing to label: people have stated something about each of these images")
    elif out:
        out.write_text("".join(f"{row['media_sha256']}\n" for row in rows))
        note(f"to label: resight export label-studio review --ids {out}")
    if drawn := max((int(row["value"]) for row in rows if row["reason"] == "random"), default=0):
        note(f"after labelling, with the same options of a scope: resight evaluate --random {drawn} --seed {seed}")
