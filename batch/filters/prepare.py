"""What is asked of a filter, made definite before anything starts: all of it, or an error that names what is wrong.

kind, fields, scopes --prepare--> a FilterSpec for each scope, all valid, of one layer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from archive.layers import Layer, layers_of
from archive.publications import view_of_run
from archive.query import query
from archive.scan import scan
from archive.schemas import MEDIA
from archive.tables import Tables
from archive.views import PRODUCTION, View, Views
from batch.filters.classifier import with_classifier
from batch.filters.contract import ClassFilterConfig
from batch.filters.registry import config_of, filter_of
from batch.filters.scope import PUBLISHED, FilterScope
from batch.filters.spec import FilterSpec
from batch.id_list import read_ids
from batch.spec import new_run_id
from model_store.errors import BadRequest

_STRANGE = {
    "time": """select count(*) = 0, 'no image was taken then' from media_rows
        where captured_at_local::timestamp >= $start and captured_at_local::timestamp < $end""",
    "ids": """select count(*) > 0, count(*) || ' of the listed images are not in the catalogue'
        from listed anti join media_rows using (media_sha256)""",
}
"""Of the table `media`: whether a scope is about nothing, and the words for it."""


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
    shown = layers_of(tables, view)
    layers = tuple(layer.layer_id for layer in shown)
    below = layers_below(shown, kind)
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


def prepare_again(
    tables: Tables, scope: FilterScope, view_name: str = PRODUCTION
) -> list[FilterSpec]:
    """Every layer of the view, from the lowest up, each over those that the specs before it make.

    Raises as `prepare`, and BadRequest where the view has no layers.
    """
    layers = layers_of(tables, Views(tables.url).current(view_name))
    if not layers:
        raise BadRequest(f"view {view_name} has no layers; see: resight filters run --help")
    specs: list[FilterSpec] = []
    for place, old in enumerate(layers):
        (spec,) = prepare(tables, old.kind, old.config, [scope], view_name)
        below = layers_below(layers, old.kind)
        specs.append(spec.model_copy(update={"input_layers": below}))
        layers[place] = specs[-1].layer()
    return specs


def layers_below(layers: Sequence[Layer], kind: str) -> tuple[str, ...]:
    """Of these, those that come before a layer of this kind: by the order of their kinds. Raises BadRequest."""
    order = filter_of(kind).order
    return tuple(one.layer_id for one in layers if filter_of(one.kind).order < order)


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
    elif scope.kind in _STRANGE:
        _require_images(tables, scope)


def _require_images(tables: Tables, scope: FilterScope) -> None:
    asked: dict[str, object] = {}
    if scope.kind == "time":
        asked = {"start": scope.start or datetime.min, "end": scope.end or datetime.max}
    with duckdb.connect() as sql:
        scan(sql, "media_rows", tables.existing("media"), MEDIA)
        if scope.ids is not None:
            sql.register("listed", pa.table({"media_sha256": read_ids(tables.url, scope.ids)}))
        ((is_wrong, words),) = sql.execute(_STRANGE[scope.kind], asked).fetchall()
    if is_wrong:
        raise BadRequest(f"scope {scope.words()}: {words}; see: resight sql, relation media")


def _require(
    tables: Tables, seen: View, relation: str, column: str, value: str, words: str
) -> None:
    quoted = "'" + value.replace("'", "''") + "'"
    sql = f"select count(*) as n from {relation} where {column} = {quoted}"
    if not query(tables, sql, seen).to_pylist()[0]["n"]:
        raise BadRequest(
            f"{words} '{value}'; see: resight sql 'select distinct {column} from {relation}'"
        )
