"""Layers: what filters say about detections, in rows of `assertions`, beside the results and never in them.

A layer is a filter's kind, version and config over the layers below it; its id is their digest, so the same
question has one layer whatever it is asked about. About a target (an image, or a detection of it) the newest row of a
layer holds; a row `withdraw` takes it back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.assertions import HUMAN
from archive.dataset import dataset
from archive.schemas import ASSERTIONS, LAYERS
from archive.tables import Tables
from archive.views import View
from model_store.errors import BadRequest, StorageUnreachable

MACHINE = "machine"
WITHDRAW = "withdraw"
FEWEST_DIGITS = 4
_HOLDS = "qualify row_number() over (partition by {target} order by asserted_at desc, assertion_id desc) = 1"
_NEWEST = """
    select {columns} from {rows} where method = 'machine' and layer_id = $layer and inference_key = $key {only}
    {holds}
"""


@dataclass(frozen=True, slots=True)
class Layer:
    """`groups` is what a group_id of it names: event (of images), occurrence or slot (of detections), or None."""

    layer_id: str
    kind: str
    filter_version: int
    config: Mapping[str, Any]
    input_layers: tuple[str, ...]
    groups: str | None


def layer_id(
    kind: str, filter_version: int, config: Mapping[str, Any], input_layers: Sequence[str]
) -> str:
    """sha256 over canonical JSON of all of it; lists (of taxa, of reviewed slots) are in the config."""
    said = [kind, filter_version, dict(config), list(input_layers)]
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def keep_layer(tables: Tables, layer: Layer, resight_version: str) -> None:
    """One row for each layer, written once. Raises StorageUnreachable, TableConflict."""
    row = {
        "layer_id": layer.layer_id,
        "kind": layer.kind,
        "filter_version": layer.filter_version,
        "config": json.dumps(dict(layer.config), sort_keys=True, ensure_ascii=False),
        "input_layers": list(layer.input_layers),
        "groups": layer.groups,
        "made_at": datetime.now(UTC),
        "resight_version": resight_version,
    }

    def missing(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
        there = dataset(snapshot, LAYERS).to_table(columns=["layer_id"])["layer_id"].to_pylist()
        return rows.slice(0, 0) if layer.layer_id in there else rows

    rows = pa.Table.from_pylist([row], schema=LAYERS)
    tables.append("layers", rows, "layers", missing)


def read_layers(tables: Tables) -> dict[str, Layer]:
    """All that were ever made, by id, the oldest first."""
    table = tables.existing("layers")
    if table is None:
        return {}
    rows = dataset(table, LAYERS).to_table().sort_by("made_at").to_pylist()
    return {row["layer_id"]: _layer(row) for row in rows}


def layers_of(tables: Tables, view: View | None) -> list[Layer]:
    """In their order. Raises StorageUnreachable where a view names a layer that is not there."""
    if view is None or not view.layers:
        return []
    known = read_layers(tables)
    lost = [one for one in view.layers if one not in known]
    if lost:
        raise StorageUnreachable(
            f"view {view.name} shows layer {lost[0][:12]}…, which is not in {tables.url}/layers"
        )
    return [known[one] for one in view.layers]


def layer_named(layers: Mapping[str, Layer], name: str, among: Collection[str] = ()) -> Layer:
    """Return the layer with this kind, or whose id, or kind and id, begin so; of a kind, one of `among` comes first.

    Raises BadRequest that lists the layers if none or several are meant.
    """
    of_kind = [one for one in layers.values() if one.kind == name]
    found = [one for one in of_kind if one.layer_id in among] or of_kind
    if not found and len(name) >= FEWEST_DIGITS:
        found = [
            one
            for one in layers.values()
            if one.layer_id.startswith(name) or f"{one.kind} {one.layer_id}".startswith(name)
        ]
    if len(found) == 1:
        return found[0]
    words = ", ".join(f"{one.kind} {one.layer_id[:12]}" for one in found or layers.values())
    what = f"'{name}' is more than one layer" if found else f"no layer '{name}'"
    raise BadRequest(f"{what}; there is: {words or 'none: resight filters run'}")


def newest(rows: str, columns: str = "*", of: str = "") -> str:
    """SQL for what a layer says by now, of parameters $layer and $key: also what it has withdrawn.

    `of` is a relation with the images that matter.
    """
    only = f"and media_sha256 in (select media_sha256 from {of})" if of else ""
    return _NEWEST.format(rows=rows, columns=columns, only=only, holds=holds("media_sha256, rank"))


def holds(target: str) -> str:
    """SQL that leaves of all a layer ever said about each target (its columns) the one row that holds."""
    return _HOLDS.format(target=target)


def append_said(tables: Tables, layer: Layer, inference_key: str, rows: pa.Table) -> int:
    """Add rows of `assertions` with their ids; how many were new, for what holds already is not said again.

    Raises StorageUnreachable, TableConflict.
    """
    assert layer.layer_id != HUMAN
    if not len(rows):
        return 0
    new: list[int] = []

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        todo = _not_yet_said(snapshot, layer.layer_id, inference_key, wanted)
        new.append(len(todo))
        return todo

    tables.append("assertions", rows, f"assertions:{layer.layer_id}", missing)
    return max(new)


def _not_yet_said(snapshot: DeltaTable, layer: str, key: str, wanted: pa.Table) -> pa.Table:
    sql = duckdb.connect()
    sql.register("there", dataset(snapshot, ASSERTIONS))
    sql.register("wanted", wanted)
    said = newest("there", "assertion_id, media_sha256, rank", of="wanted")
    found = sql.sql(
        f"from wanted anti join ({said}) using (assertion_id)", params={"layer": layer, "key": key}
    )
    return found.to_arrow_table().cast(ASSERTIONS)


def _layer(row: Mapping[str, Any]) -> Layer:
    return Layer(
        row["layer_id"],
        row["kind"],
        row["filter_version"],
        json.loads(row["config"]),
        tuple(row["input_layers"]),
        row["groups"],
    )
