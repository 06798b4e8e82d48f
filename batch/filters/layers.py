"""Layers of a view, switched on and off: a new number of the view, and nothing else. The rows stay as they are.

on   a layer takes its place by the order of its kind (batch/filters/registry.py), in place of one of its kind
off  it is left out; on again shows the same rows again
"""

from __future__ import annotations

from collections.abc import Sequence

from archive.dataset import dataset
from archive.layers import Layer, layer_named, layers_of, read_layers
from archive.schemas import RUNS
from archive.scratch import scratch
from archive.tables import Tables
from archive.views import PRODUCTION, View, Views
from batch.filters.prepare import layers_below
from batch.filters.registry import filter_of
from batch.publish import publish_view
from model_store.errors import BadRequest

_MADE = """
    select distinct metrics->>'layer_id' from runs
    where kind = 'filter' and state = 'sealed' and inference_key = $key
"""


def switch(
    tables: Tables,
    view_name: str = PRODUCTION,
    *,
    on: Sequence[str] = (),
    off: Sequence[str] = (),
    reason: str = "",
) -> View:
    """Return what is published then. Layers by name as in `archive/layers.py`; to switch off, those of the view first.

    Raises BadRequest for a layer or a view that is not there, Conflict, StorageError.
    """
    now = Views(tables.url).current(view_name)
    if now is None:
        raise BadRequest(f"nothing is published as {view_name}: resight runs publish RUN")
    known = read_layers(tables)
    layers_of(tables, now)  # all of them are there
    layers = now.layers
    for name in off:
        gone = layer_named(known, name, layers)
        if gone.layer_id not in layers:
            raise BadRequest(f"view {view_name} does not show {gone.kind} {gone.layer_id[:12]}")
        layers = tuple(one for one in layers if one != gone.layer_id)
    for name in on:
        layers = _with(layers, layer_named(known, name), known)
    words = reason or "; ".join(
        [*(f"layer {name} on" for name in on), *(f"layer {name} off" for name in off)]
    )
    return publish_view(
        tables,
        now.model_copy(update={"layers": layers, "reason": words}),
        after=now,
    )


def _with(layers: tuple[str, ...], new: Layer, known: dict[str, Layer]) -> tuple[str, ...]:
    kept = [one for one in layers if known[one].kind != new.kind]
    order = filter_of(new.kind).order
    place = sum(filter_of(known[one].kind).order <= order for one in kept)
    return (*kept[:place], new.layer_id, *kept[place:])


def unfounded(tables: Tables, view: View) -> list[str]:
    """Words for each layer of the view that was made over other layers than those now below it.

    Raises StorageUnreachable where a layer is not there, BadRequest where its kind is unknown.
    """
    layers = layers_of(tables, view)
    return [
        f"{one.kind} {one.layer_id[:12]} was made over other layers than those below it now; make it anew: "
        "resight filters rerun"
        for one in layers
        if one.input_layers != layers_below(layers, one.kind)
    ]


def silent(tables: Tables, view: View) -> list[Layer]:
    """Layers of the view that were never made over what its model has seen, as after the publication of another model:
    what they hid is shown again.

    Raises StorageUnreachable where a layer is not there.
    """
    layers = layers_of(tables, view)
    runs = tables.existing("runs") if layers else None
    if runs is None:
        return layers
    with scratch("layers") as sql:
        sql.register("runs", dataset(runs, RUNS))
        made = {one for (one,) in sql.execute(_MADE, {"key": view.inference_key}).fetchall()}
    return [one for one in layers if one.layer_id not in made]


def of_silent(tables: Tables, view: View) -> list[str]:
    """Words for each of them."""
    model, run = f"{view.model_name}@{view.model_version}", view.run_id or "published"
    return [
        f"{one.kind} {one.layer_id[:12]} says nothing of what {model} has seen, and what it hid is shown: "
        f"resight filters rerun --run {run}"
        for one in silent(tables, view)
    ]
