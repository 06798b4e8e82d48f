"""The commands `layers list, on, off`: the layers that a view shows."""

from __future__ import annotations

from typing import Annotated

import typer

from archive.defaults import PRODUCTION
from cli.output import Format, FormatOption, ViewName, note, print_facts, print_rows
from model_store.errors import StorageError
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from archive.annotations.layers import read_layers
    from archive.delta.tables import Tables
    from archive.views.views import View, Views
    from batch.filters.layers import never_run_warnings, outdated_warnings, states, switch
    from serve.settings import Settings

app = typer.Typer(help="Show or hide the layers of a view.", no_args_is_help=True)
Reason = Annotated[str, typer.Option(help="reason that is recorded with the view")]
Layers = Annotated[list[str], typer.Argument(help="kind of the layer, or the first digits of its id")]


@app.command("list")
def list_layers(view: ViewName = PRODUCTION, fmt: FormatOption = Format.table) -> None:
    """List all layers and their places in a view. Example: resight layers list"""
    tables = Tables(Settings().mounted_tables_url)
    current = Views(tables.url).current(view)
    rows = [
        {
            "layer": state.layer.layer_id if fmt is not Format.table else state.layer.layer_id[:12],
            "kind": state.layer.kind,
            "on": state.position or "",
            "says": state.assertions,
            "config": {k: v for k, v in state.layer.config.items() if k != "kind"},
        }
        for state in states(tables, current)
    ]
    print_rows(rows, fmt, ("layer", "kind", "on", "says", "config"))
    if current is not None:
        for words in (*outdated_warnings(tables, current), *never_run_warnings(tables, current)):
            note(words)


@app.command()
def on(layer: Layers, view: ViewName = PRODUCTION, reason: Reason = "", fmt: FormatOption = Format.table) -> None:
    """Show layers in a view; each replaces the layer of its kind. Example: resight layers on small-size"""
    _switched(view, on=layer, reason=reason, fmt=fmt)


@app.command()
def off(layer: Layers, view: ViewName = PRODUCTION, reason: Reason = "", fmt: FormatOption = Format.table) -> None:
    """Hide layers in a view; their rows are kept. Example: resight layers off small-size"""
    _switched(view, off=layer, reason=reason, fmt=fmt)


def note_never_run(tables: Tables, view: View) -> None:
    """Note layers of a published view that have no assertions for it. Notes storage errors instead of raising them."""
    try:
        notes = never_run_warnings(tables, view)
    except StorageError as error:
        notes = [str(error)]
    for text in notes:
        note(text)


def layer_words(tables: Tables, view: View) -> list[str]:
    """Return the kind and the first digits of each layer that a view shows."""
    by_id = read_layers(tables)
    return [f"{by_id[layer].kind if layer in by_id else 'lost'} {layer[:12]}" for layer in view.layers]


def _switched(view: str, *, reason: str, fmt: Format, **which: list[str]) -> None:
    tables = Tables(Settings().mounted_tables_url)
    shown = switch(tables, view, reason=reason, **which)
    print_facts({"view": shown.name, "number": shown.serial, "layers": layer_words(tables, shown)}, fmt)
    for words in (*outdated_warnings(tables, shown), *never_run_warnings(tables, shown)):
        note(words)
