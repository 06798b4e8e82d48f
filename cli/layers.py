"""layers list, on, off: which layers a view shows."""

from __future__ import annotations

from typing import Annotated

import typer

from archive.defaults import PRODUCTION
from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import StorageError
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.layers import holds, read_layers
    from archive.query import query
    from archive.tables import Tables
    from archive.views import View, Views
    from batch.filters.layers import of_silent, switch, unfounded
    from serve.settings import Settings

app = typer.Typer(help="Layers of a view: which are shown.", no_args_is_help=True)
ViewName = Annotated[str, typer.Option("--view", help="name of the view")]


@app.command("list")
def list_layers(view: ViewName = PRODUCTION, fmt: FormatOption = Format.table) -> None:
    """Every layer that was made, and its place in a view. Example: resight layers list"""
    tables = Tables(Settings().tables_url)
    current = Views(tables.url).current(view)
    shown = current.layers if current else ()
    counts = _counts(tables)
    rows = [
        {
            "layer": one.layer_id if fmt is not Format.table else one.layer_id[:12],
            "kind": one.kind,
            "on": shown.index(one.layer_id) + 1 if one.layer_id in shown else "",
            "says": counts.get(one.layer_id, 0),
            "config": {k: v for k, v in one.config.items() if k != "kind"},
        }
        for one in read_layers(tables).values()
    ]
    print_rows(rows, fmt, ("layer", "kind", "on", "says", "config"))
    if current is not None:
        for words in (*unfounded(tables, current), *of_silent(tables, current)):
            note(words)


@app.command()
def on(
    layer: Annotated[list[str], typer.Argument(help="its kind, or the first digits of its id")],
    view: ViewName = PRODUCTION,
    reason: Annotated[str, typer.Option(help="kept with the view")] = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Show layers in a view, each in the place of one of its kind. Example: resight layers on small-size"""
    _switched(view, on=layer, reason=reason, fmt=fmt)


@app.command()
def off(
    layer: Annotated[list[str], typer.Argument(help="its kind, or the first digits of its id")],
    view: ViewName = PRODUCTION,
    reason: Annotated[str, typer.Option(help="kept with the view")] = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Show a view without layers; their rows stay. Example: resight layers off small-size"""
    _switched(view, off=layer, reason=reason, fmt=fmt)


def tell_silent(tables: Tables, view: View) -> None:
    """After a publication, which stands whatever can be said of its layers."""
    try:
        words = of_silent(tables, view)
    except StorageError as error:
        words = [str(error)]
    for one in words:
        note(one)


def _switched(view: str, *, reason: str, fmt: Format, **which: list[str]) -> None:
    tables = Tables(Settings().tables_url)
    shown = switch(tables, view, reason=reason, **which)
    known = read_layers(tables)
    layers = [f"{known[one].kind} {one[:12]}" for one in shown.layers]
    print_facts({"view": shown.name, "number": shown.serial, "layers": layers}, fmt)
    for words in (*unfounded(tables, shown), *of_silent(tables, shown)):
        note(words)


def _counts(tables: Tables) -> dict[str, int]:
    if tables.existing("assertions") is None:
        return {}
    newest = holds("layer_id, inference_key, media_sha256, rank")
    sql = (
        f"with newest as (from assertions where method = 'machine' {newest}) "
        "select layer_id, count(*) as n from newest where action <> 'withdraw' group by all"
    )
    return {row["layer_id"]: row["n"] for row in query(tables, sql).to_pylist()}
