"""Store layers: the output of filters as rows of `assertions`, separate from the results.

A layer is a filter's kind, version and config over the layers below it. Its id is their digest, so equal filters share
one layer for all images. The newest row of a layer about a target (an image or a detection) is valid; a row with
action `withdraw` revokes the earlier ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from archive.annotations.assertions import HUMAN
from archive.delta.snapshot import dataset, memory_database
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import ASSERTIONS, LAYERS
from archive.views.views import View
from model_store.errors import BadRequest, StorageUnreachable

MACHINE = "machine"
WITHDRAW = "withdraw"
FEWEST_DIGITS = 4
_POSITIONS = pa.schema([("position", pa.int32()), ("layer_id", pa.string()), ("groups", pa.string())])


@dataclass(frozen=True, slots=True)
class Layer:
    """A filter and its inputs. `groups` is the kind of its group_id: event, occurrence, slot or None.

    An event groups images; an occurrence or slot groups detections.
    """

    layer_id: str
    kind: str
    filter_version: int
    config: Mapping[str, Any]
    input_layers: tuple[str, ...]
    groups: str | None


def layer_id(kind: str, filter_version: int, config: Mapping[str, Any], input_layers: Sequence[str]) -> str:
    """Return the sha256 over canonical JSON of all arguments. Lists (of taxa, of reviewed slots) are in the config."""
    fields = [kind, filter_version, dict(config), list(input_layers)]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def keep_layer(tables: Tables, layer: Layer, resight_version: str) -> None:
    """Write the row of a layer unless it exists. Raises StorageUnreachable, TableConflict."""
    row = asdict(layer) | {
        "config": json.dumps(dict(layer.config), sort_keys=True, ensure_ascii=False),
        "made_at": datetime.now(UTC),
        "resight_version": resight_version,
    }

    def missing(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
        ids = dataset(snapshot, LAYERS).to_table(columns=["layer_id"])["layer_id"].to_pylist()
        return rows.slice(0, 0) if layer.layer_id in ids else rows

    rows = pa.Table.from_pylist([row], schema=LAYERS)
    Writer(tables, "layers").append(rows, missing)


def read_layers(tables: Tables) -> dict[str, Layer]:
    """Return all layers by id, oldest first."""
    table = dataset(tables.existing("layers"), LAYERS).to_table().sort_by("made_at")
    rows = table.select([field.name for field in fields(Layer)]).to_pylist()
    parsed = ({"config": json.loads(row["config"]), "input_layers": tuple(row["input_layers"])} for row in rows)
    return {row["layer_id"]: Layer(**row | more) for row, more in zip(rows, parsed, strict=True)}


def layers_of(tables: Tables, view: View | None) -> list[Layer]:
    """Return the layers of a view in their order. Raises StorageUnreachable if one does not exist."""
    if view is None or not view.layers:
        return []
    stored = read_layers(tables)
    lost = [layer for layer in view.layers if layer not in stored]
    if lost:
        raise StorageUnreachable(f"view {view.name} shows layer {lost[0][:12]}…, which is not in {tables.url}/layers")
    return [stored[layer] for layer in view.layers]


def layer_table(layers: Sequence[Layer]) -> pa.Table:
    """Return relation `view_layers` of archive/annotations/annotations.sql."""
    rows = [
        {"position": position, "layer_id": layer.layer_id, "groups": layer.groups}
        for position, layer in enumerate(layers)
    ]
    return pa.Table.from_pylist(rows, schema=_POSITIONS)


def layer_named(layers: Mapping[str, Layer], name: str, among: Collection[str] = ()) -> Layer:
    """Return the layer with kind `name`, or with an id or "kind id" that starts with it.

    Of several layers of a kind, those of `among` are preferred. Raises BadRequest that lists the layers if none or
    several match.
    """
    of_kind = [layer for layer in layers.values() if layer.kind == name]
    matches = [layer for layer in of_kind if layer.layer_id in among] or of_kind
    if not matches and len(name) >= FEWEST_DIGITS:
        matches = [
            layer
            for layer in layers.values()
            if layer.layer_id.startswith(name) or f"{layer.kind} {layer.layer_id}".startswith(name)
        ]
    if len(matches) == 1:
        return matches[0]
    listed = ", ".join(f"{layer.kind} {layer.layer_id[:12]}" for layer in matches or layers.values())
    problem = f"ambiguous layer '{name}'" if matches else f"unknown layer '{name}'"
    hint = f"use one of {listed}" if listed else "create one with resight filters run"
    raise BadRequest(f"{problem}: {hint}")


def newest(rows: str, columns: str = "*", of: str = "") -> str:
    """Return SQL for the newest rows of a layer (parameters $layer and $key), including withdrawn ones.

    `of` names a relation that restricts the images.
    """
    only = f"and media_sha256 in (select media_sha256 from {of})" if of else ""
    return (
        f"select {columns} from {rows} where method = 'machine' and layer_id = $layer and inference_key = $key {only} "
        + newest_sql("media_sha256, rank")
    )


def newest_sql(target: str) -> str:
    """Return SQL that selects the newest row of a layer for each `target` (its columns)."""
    return f"qualify row_number() over (partition by {target} order by asserted_at desc, assertion_id desc) = 1"


def append_assertions(tables: Tables, layer: Layer, inference_key: str, rows: pa.Table) -> None:
    """Add rows of `assertions` with their ids, except those that are already valid.

    Raises StorageUnreachable, TableConflict.
    """
    assert layer.layer_id != HUMAN
    if len(rows):
        missing = partial(_missing_rows, layer.layer_id, inference_key)
        Writer(tables, "assertions", layer.layer_id).append(rows, missing)


def _missing_rows(layer: str, key: str, snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
    sql = memory_database()
    sql.register("stored", dataset(snapshot, ASSERTIONS))
    sql.register("wanted", wanted)
    valid = newest("stored", "assertion_id, media_sha256, rank", of="wanted")
    rows = sql.sql(f"from wanted anti join ({valid}) using (assertion_id)", params={"layer": layer, "key": key})
    return rows.to_arrow_table().cast(ASSERTIONS)
