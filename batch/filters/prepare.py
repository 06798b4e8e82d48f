"""What is asked of a filter, made definite before anything starts: all of it, or an error that names what is wrong.

kind, fields, scope --prepare--> a valid FilterSpec of one layer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archive.layers import Layer, layers_of
from archive.publications import view_of_run
from archive.scratch import LARGE_MIB, scratch
from archive.tables import Tables
from archive.views import PRODUCTION, View, Views
from batch.filters.classifier import with_classifier
from batch.filters.contract import ClassFilterConfig
from batch.filters.load import choose
from batch.filters.registry import config_of, filter_of
from batch.filters.scope import PUBLISHED, FilterScope
from batch.filters.spec import FilterSpec
from batch.spec import new_run_id
from model_store.errors import BadRequest

EVERYTHING = FilterScope()


def prepare(
    tables: Tables,
    kind: str,
    fields: Mapping[str, Any],
    scope: FilterScope = EVERYTHING,
    view_name: str = PRODUCTION,
) -> FilterSpec:
    """Raises BadRequest: nothing has been started or written then. StorageUnreachable."""
    shown = layers_of(tables, Views(tables.url).current(view_name))
    below = layers_below(shown, kind)
    view = _view(tables, scope, view_name, shown)
    spec = _spec(tables, kind, fields, scope, view, below)
    _require_images(tables, scope, view, shown)
    return spec


def prepare_again(
    tables: Tables, scope: FilterScope = EVERYTHING, view_name: str = PRODUCTION
) -> list[FilterSpec]:
    """Every layer of the view, from the lowest up, each over those that the specs before it make.

    Raises as `prepare`, and BadRequest where the view has no layers.
    """
    layers = layers_of(tables, Views(tables.url).current(view_name))
    if not layers:
        raise BadRequest(f"view {view_name} has no layers; see: resight filters run --help")
    view = _view(tables, scope, view_name, layers)
    _require_images(tables, scope, view, layers)
    specs: list[FilterSpec] = []
    for place, old in enumerate(layers):
        below = layers_below(layers, old.kind)
        specs.append(_spec(tables, old.kind, old.config, scope, view, below))
        layers[place] = specs[-1].layer()
    return specs


def layers_below(layers: Sequence[Layer], kind: str) -> tuple[str, ...]:
    """Of these, those that come before a layer of this kind: by the order of their kinds. Raises BadRequest."""
    order = filter_of(kind).order
    return tuple(one.layer_id for one in layers if filter_of(one.kind).order < order)


def _spec(
    tables: Tables,
    kind: str,
    fields: Mapping[str, Any],
    scope: FilterScope,
    view: View,
    below: tuple[str, ...],
) -> FilterSpec:
    one, config = filter_of(kind), config_of(kind, dict(fields))
    if scope.sample is not None and one.context == "camera":
        raise BadRequest(
            f"--sample: {kind} judges all images of a camera, which a sample has not; choose cameras: --camera"
        )
    if isinstance(config, ClassFilterConfig):
        config = with_classifier(tables, view.inference_key, one, config)
    return FilterSpec(
        run_id=new_run_id(),
        kind=kind,
        config=config.model_dump(mode="json"),
        scope=scope,
        view=view,
        input_layers=below,
    )


def _view(tables: Tables, scope: FilterScope, name: str, shown: Sequence[Layer]) -> View:
    """Return the results that are meant, with the layers that are shown."""
    if scope.run != PUBLISHED:
        view = view_of_run(tables, scope.run)
    else:
        published = Views(tables.url).current(name)
        if published is None:
            raise BadRequest(
                f"nothing is published as {name}: resight runs publish RUN, or choose results with --run RUN"
            )
        view = published
    return view.model_copy(update={"layers": tuple(one.layer_id for one in shown)})


def _require_images(
    tables: Tables, scope: FilterScope, view: View, layers: Sequence[Layer]
) -> None:
    with scratch("filter", LARGE_MIB) as sql:
        choose(sql, tables, view, layers, scope)
