"""Validate a request for a filter run and pin its inputs, before anything starts.

kind, fields, scope --prepare--> a valid FilterSpec of one layer
name@version, a key or its first digits, or nothing --classifier_of--> Classified --> names and lineages of its classes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archive.annotations.classes import Classified, classifiers, only_classifier, read_classes
from archive.annotations.layers import Layer, layers_of
from archive.delta.scratch_db import LARGE_MIB, scratch
from archive.delta.tables import Tables
from archive.views.publications import view_of_run
from archive.views.views import PRODUCTION, View, Views
from batch.filters.contract import ClassFilterConfig, Filter, FilterConfig
from batch.filters.load import choose
from batch.filters.registry import config_of, filter_of
from batch.filters.spec import FilterSpec
from batch.runs.scope import PUBLISHED, FilterScope
from batch.runs.spec import new_run_id
from model_store.errors import BadRequest

EVERYTHING = FilterScope()
FEWEST_DIGITS = 4
"""Digits of a key that can name a classifier."""


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


def classifier_of(tables: Tables, inference_key: str, name: str) -> Classified:
    """Return the classifier with this name among those that have classified detections of this inference key.

    Raises BadRequest that lists them if the name does not match exactly one.
    """
    available = classifiers(tables, inference_key)
    wanted = name or only_classifier(tables, inference_key)
    matches = [c for c in available if wanted in c.model.split(", ")]
    if not matches and len(wanted) >= FEWEST_DIGITS:
        matches = [c for c in available if c.classifier_key.startswith(wanted)]
    if len(matches) != 1:
        listed = "; ".join(map(str, available)) or "none: resight classify --model NAME"
        raise BadRequest(f"'{name}' matches {len(matches)} classifiers of these detections; available: {listed}")
    return matches[0]


def with_classifier(
    tables: Tables, inference_key: str, filter_: Filter, config: ClassFilterConfig
) -> ClassFilterConfig:
    """Return the config with the complete classifier key, if it needs one.

    Raises BadRequest if it does not fit the classes, or needs a classifier and none is available.
    """
    if config.needs is None or (
        config.needs == "lineages" and not config.classifier and not classifiers(tables, inference_key)
    ):
        return config
    classified = classifier_of(tables, inference_key, config.classifier)
    if filter_.require is not None:
        filter_.require(config, *read_classes(tables.url, classified.labels_digest))
    return config.model_copy(update={"classifier": classified.classifier_key})


def classes_of(tables: Tables, inference_key: str, config: FilterConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names and lineages of the classes for a filter with this config; empty if it needs none.

    Raises BadRequest if its classifier has classified nothing, StorageUnreachable.
    """
    if not isinstance(config, ClassFilterConfig) or not (config.needs and config.classifier):
        return (), ()
    classified = classifier_of(tables, inference_key, config.classifier)
    return read_classes(tables.url, classified.labels_digest)
