"""What is asked of a filter, made definite before anything starts: all of it, or an error that names what is wrong.

kind, fields, scopes --prepare--> a FilterSpec for each scope, all valid, of one layer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archive.layers import read_layers
from archive.publications import view_of_run
from archive.query import query
from archive.tables import Tables
from archive.views import PRODUCTION, View, Views
from batch.filters.classifier import with_classifier
from batch.filters.contract import ClassFilterConfig
from batch.filters.registry import FILTERS, config_of, filter_of
from batch.filters.scope import PUBLISHED, FilterScope
from batch.filters.spec import FilterSpec
from batch.id_list import read_ids
from batch.spec import new_run_id
from model_store.errors import BadRequest


def prepare(
    tables: Tables,
    kind: str,
    fields: Mapping[str, Any],
    scopes: Sequence[FilterScope],
    view_name: str = PRODUCTION,
) -> list[FilterSpec]:
    """Raises BadRequest: nothing has been started or written then. StorageUnreachable."""
    one, config = filter_of(kind), config_of(kind, dict(fields))
    if not scopes:
        raise BadRequest(
            "a scope is needed: run, camera, start and end, ids or occurrence; --scope run=published is all"
        )
    view = Views(tables.url).current(view_name)
    layers = view.layers if view else ()
    below = input_layers(tables, layers, kind)
    specs: list[FilterSpec] = []
    for scope in scopes:
        seen = _seen(tables, scope, view)
        _require_there(tables, scope, seen)
        pinned = config
        if isinstance(config, ClassFilterConfig):
            pinned = with_classifier(tables, seen.inference_key, one, config)
        specs.append(
            FilterSpec(
                run_id=new_run_id(),
                kind=kind,
                config=pinned.model_dump(mode="json"),
                scope=scope,
                inference_key=seen.inference_key,
                model_name=seen.model_name,
                model_version=seen.model_version,
                weights_sha256=seen.weights_sha256,
                input_layers=below,
                view_layers=layers,
            )
        )
    return specs


def input_layers(tables: Tables, layers: Sequence[str], kind: str) -> tuple[str, ...]:
    """Of the view's, those that come before a layer of this kind: by the order of their kinds."""
    if not layers:
        return ()
    known, order = read_layers(tables), filter_of(kind).order
    return tuple(one for one in layers if FILTERS[known[one].kind].order < order)


def _seen(tables: Tables, scope: FilterScope, view: View | None) -> View:
    """The inference key that is meant, and whose it is."""
    if scope.run is not None and scope.run != PUBLISHED:
        return view_of_run(tables, scope.run)
    if view is None:
        raise BadRequest(
            f"scope {scope.words()} is about what is published, and nothing is: resight runs publish RUN, or "
            "--scope run=RUN"
        )
    return view


def _require_there(tables: Tables, scope: FilterScope, seen: View) -> None:
    """Raises BadRequest where the scope names what is not there."""
    if scope.kind == "camera":
        assert scope.camera is not None
        _require(tables, seen, "media", "camera_id", scope.camera, "no image is of camera")
    elif scope.kind == "occurrence":
        assert scope.occurrence is not None
        _require(
            tables,
            seen,
            "occurrences",
            "occurrence_id",
            scope.occurrence,
            "the view has no occurrence",
        )
    elif scope.kind == "ids":
        assert scope.ids is not None
        read_ids(tables.url, scope.ids)


def _require(
    tables: Tables, seen: View, relation: str, column: str, value: str, words: str
) -> None:
    quoted = "'" + value.replace("'", "''") + "'"
    sql = f"select count(*) as n from {relation} where {column} = {quoted}"
    if not query(tables, sql, seen).to_pylist()[0]["n"]:
        raise BadRequest(
            f"{words} '{value}'; see: resight sql 'select distinct {column} from {relation}'"
        )
