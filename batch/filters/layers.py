"""Switch layers of a view on and off. This publishes the view under a new number and changes no rows.

on   insert a layer by the order of its kind (batch/filters/registry.py), replacing a layer of the same kind
off  remove it; switching it on again shows the same rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archive.annotations.layers import Layer, layer_named, layers_of, newest_sql, read_layers
from archive.delta.snapshot import open_tables
from archive.delta.tables import Tables
from archive.views.query import query
from archive.views.views import PRODUCTION, View, Views
from batch.filters.prepare import layers_below
from batch.filters.registry import filter_of
from batch.publishing.publish import publish_view
from model_store.errors import BadRequest

_COMPUTED = """
    select distinct metrics->>'layer_id' from runs
    where kind = 'filter' and state = 'sealed' and inference_key = $key
"""


@dataclass(frozen=True, slots=True)
class LayerState:
    """A stored layer, its place in a view (from 1; None: not shown), and its number of valid assertions."""

    layer: Layer
    position: int | None
    assertions: int


def states(tables: Tables, view: View | None) -> list[LayerState]:
    """Return all stored layers, oldest first. Raises StorageUnreachable."""
    shown, counts = view.layers if view else (), _counts(tables)
    return [
        LayerState(
            layer, shown.index(layer.layer_id) + 1 if layer.layer_id in shown else None, counts.get(layer.layer_id, 0)
        )
        for layer in read_layers(tables).values()
    ]


def _counts(tables: Tables) -> dict[str, int]:
    if tables.existing("assertions") is None:
        return {}
    newest = newest_sql("layer_id, inference_key, media_sha256, rank")
    sql = (
        f"with newest as (from assertions where method = 'machine' {newest}) "
        "select layer_id, count(*) as n from newest where action <> 'withdraw' group by all"
    )
    return {row["layer_id"]: row["n"] for row in query(tables, sql).to_pylist()}


def switch(
    tables: Tables, view_name: str = PRODUCTION, *, on: Sequence[str] = (), off: Sequence[str] = (), reason: str = ""
) -> View:
    """Publish the view with these layers on and off, and return it.

    Layers are named as in `archive/annotations/layers.py`; a name in `off` prefers layers of the view. Raises
    BadRequest if a layer or the view does not exist, Conflict, StorageError.
    """
    view = Views(tables.url).current(view_name)
    if view is None:
        raise BadRequest(f"nothing is published as {view_name}: resight runs publish RUN")
    stored = read_layers(tables)
    layers_of(tables, view)  # raises if a layer of the view is missing
    layers = view.layers
    for name in off:
        removed = layer_named(stored, name, layers)
        if removed.layer_id not in layers:
            raise BadRequest(f"view {view_name} does not show {removed.kind} {removed.layer_id[:12]}")
        layers = tuple(layer_id for layer_id in layers if layer_id != removed.layer_id)
    for name in on:
        layers = _with(layers, layer_named(stored, name), stored)
    reason = reason or "; ".join([*(f"layer {name} on" for name in on), *(f"layer {name} off" for name in off)])
    return publish_view(tables, view.model_copy(update={"layers": layers, "reason": reason}), after=view)


def _with(layers: tuple[str, ...], new: Layer, stored: dict[str, Layer]) -> tuple[str, ...]:
    kept = [layer_id for layer_id in layers if stored[layer_id].kind != new.kind]
    order = filter_of(new.kind).order
    position = sum(filter_of(stored[layer_id].kind).order <= order for layer_id in kept)
    return (*kept[:position], new.layer_id, *kept[position:])


def outdated_warnings(tables: Tables, view: View) -> list[str]:
    """Return a warning for each layer of the view that was computed over other layers than those now below it.

    Raises StorageUnreachable if a layer is missing, BadRequest if its kind is unknown.
    """
    layers = layers_of(tables, view)
    return [
        f"{layer.kind} {layer.layer_id[:12]} was made over other layers than those below it now; compute it again: "
        "resight filters rerun"
        for layer in layers
        if layer.input_layers != layers_below(layers, layer.kind)
    ]


def never_run(tables: Tables, view: View) -> list[Layer]:
    """Return the layers of the view that were never computed over its model's results.

    This happens after another model is published: these layers change nothing in it. Raises StorageUnreachable if
    a layer is missing.
    """
    layers = layers_of(tables, view)
    if not layers:
        return []
    with open_tables(tables, "runs") as sql:
        computed = {layer_id for (layer_id,) in sql.execute(_COMPUTED, {"key": view.inference_key}).fetchall()}
    return [layer for layer in layers if layer.layer_id not in computed]


def never_run_warnings(tables: Tables, view: View) -> list[str]:
    """Return a warning for each layer that `never_run` returns."""
    model, run = f"{view.model_name}@{view.model_version}", view.run_id or "published"
    return [
        f"{layer.kind} {layer.layer_id[:12]} was never run over the results of {model}, and changes none of them: "
        f"resight filters rerun --run {run}"
        for layer in never_run(tables, view)
    ]
