"""Validate a request for a filter run and pin its inputs, before anything starts.

kind, fields, scope --prepare--> a valid FilterSpec of one layer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archive.annotations.layers import Layer, layers_of
from archive.delta.scratch_db import LARGE_MIB, scratch
from archive.delta.tables import Tables
from archive.views.publications import view_of_run
from archive.views.views import PRODUCTION, View, Views
from batch.filters.contract import ClassFilterConfig
from batch.filters.load import choose
from batch.filters.registry import config_of, filter_of
from batch.filters.spec import FilterSpec
from batch.filters.support.classifier import with_classifier
from batch.runs.scope import PUBLISHED, FilterScope
from batch.runs.spec import new_run_id
from model_store.errors import BadRequest

EVERYTHING = FilterScope()


def prepare(
    tables: Tables, kind: str, fields: Mapping[str, Any], scope: FilterScope = EVERYTHING, view_name: str = PRODUCTION
) -> FilterSpec:
    """Return the specification of a run; nothing is written. Raises BadRequest, StorageUnreachable."""
    shown = layers_of(tables, Views(tables.url).current(view_name))
    below = layers_below(shown, kind)
    view = _view(tables, scope, view_name, shown)
    spec = _spec(tables, kind, fields, scope, view, below)
    _require_images(tables, scope, view, shown)
    return spec


def prepare_again(tables: Tables, scope: FilterScope = EVERYTHING, view_name: str = PRODUCTION) -> list[FilterSpec]:
    """Return a specification for every layer of the view, lowest first, each over the new layers below it.

    Raises as `prepare`, and BadRequest if the view has no layers.
    """
    layers = layers_of(tables, Views(tables.url).current(view_name))
    if not layers:
        raise BadRequest(f"view {view_name} has no layers; see: resight filters run --help")
    view = _view(tables, scope, view_name, layers)
    _require_images(tables, scope, view, layers)
    specs: list[FilterSpec] = []
    for position, old in enumerate(layers):
        below = layers_below(layers, old.kind)
        specs.append(_spec(tables, old.kind, old.config, scope, view, below))
        layers[position] = specs[-1].layer()
    return specs


def layers_below(layers: Sequence[Layer], kind: str) -> tuple[str, ...]:
    """Return the ids of the layers that come before this kind, by the order of kinds. Raises BadRequest."""
    order = filter_of(kind).order
    return tuple(layer.layer_id for layer in layers if filter_of(layer.kind).order < order)


def _spec(
    tables: Tables, kind: str, fields: Mapping[str, Any], scope: FilterScope, view: View, below: tuple[str, ...]
) -> FilterSpec:
    filter_, config = filter_of(kind), config_of(kind, dict(fields))
    if scope.sample is not None and filter_.context == "camera":
        raise BadRequest(
            f"--sample: {kind} judges all images of a camera, so it cannot use a sample; choose cameras with --camera"
        )
    if isinstance(config, ClassFilterConfig):
        config = with_classifier(tables, view.inference_key, filter_, config)
    return FilterSpec(
        run_id=new_run_id(),
        kind=kind,
        config=config.model_dump(mode="json"),
        scope=scope,
        view=view,
        input_layers=below,
    )


def _view(tables: Tables, scope: FilterScope, name: str, shown: Sequence[Layer]) -> View:
    """Return the view with the requested results and the layers shown over them."""
    if scope.run != PUBLISHED:
        view = view_of_run(tables, scope.run)
    else:
        published = Views(tables.url).current(name)
        if published is None:
            raise BadRequest(
                f"nothing is published as {name}: resight runs publish RUN, or choose results with --run RUN"
            )
        view = published
    return view.model_copy(update={"layers": tuple(layer.layer_id for layer in shown)})


def _require_images(tables: Tables, scope: FilterScope, view: View, layers: Sequence[Layer]) -> None:
    with scratch("filter", LARGE_MIB) as sql:
        choose(sql, tables, view, layers, scope)
