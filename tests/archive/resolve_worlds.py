"""Random small worlds for archive/annotations/annotations.sql, as Arrow tables in memory or as Delta tables.

Boxes are on a coarse grid, so that they overlap, tie, and reach an IoU of exactly 0.5. Times and labels are few, so
that statements collide. Only statements that filters and people can write are drawn.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from pyarrow.dataset import Dataset, dataset

from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, LAYERS, MEDIA
from archive.views.views import View
from tests.archive.resolve_oracle import Corners, File, Row, Seen, World
from tests.fixtures_local import result_rows

KEY, OTHER = "k" * 64, "o" * 64
NOON = datetime(2026, 5, 14, 12, tzinfo=UTC)
LABELS = ("deer", "fox", "hare")
SCORES = (0.1, 0.25, 0.5, 0.7, 0.9)
"""Scores: some have no exact 32-bit value, and some equal thresholds of a view."""
STRETCHES = ((0, 0), (4, 4), (0, 12), (1, 0), (6, 6), (-4, 0), (30, 30))
"""Offsets in px of both ends of a person's box; with sides of 12 px the IoU is 1, 0.5, 0.5, 0.92, 0.33, 0.75, 0."""
GROUPS = (None, "event", "occurrence", "slot")


def sha(number: int) -> str:
    return f"{number:064x}"


def identified(row: Row) -> Row:
    """Return the row with an id in an arbitrary order."""
    return {**row, "assertion_id": hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()}


def person(action: str, image: str, box: Corners | None = None, hour: int = 0, **more: Any) -> Row:
    corners = dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), box, strict=True)) if box else {}
    row = {"layer_id": "human", "method": "human", "action": action, "media_sha256": image}
    row |= corners | {"actor": "kim", "asserted_at": NOON + timedelta(hours=hour)}
    return identified({**row, "reason": "seen", **more})


def layer_says(layer: str, action: str, image: str, rank: int | None, hour: int = 0, **more: Any) -> Row:
    row = {"layer_id": layer, "method": "machine", "action": action, "media_sha256": image}
    row |= {} if rank is None else {"rank": rank}
    row |= {"inference_key": KEY, "asserted_at": NOON + timedelta(hours=hour)}
    return identified({**row, "reason": f"{action} at {hour}", **more})


@st.composite
def boxes(draw: st.DrawFn) -> Corners:
    x, y = draw(st.sampled_from((0, 3, 4, 12))), draw(st.sampled_from((0, 0, 6)))
    w, h = draw(st.sampled_from((12, 24))), draw(st.sampled_from((12, 12, 24)))
    return float(x), float(y), float(x + w), float(y + h)


SEEN = st.builds(Seen, st.sampled_from(LABELS), st.sampled_from(SCORES), boxes())
HOURS = st.integers(0, 4)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    images = [sha(n) for n in range(draw(st.integers(2, 8)))]
    files = {image: draw(_files(n)) for n, image in enumerate(images)}
    results = {key: {image: draw(st.lists(SEEN, max_size=4)) for image in images} for key in (KEY, OTHER)}
    if draw(st.booleans()):
        del results[KEY][images[-1]]  # without a result
    layers = {hashlib.sha256(bytes([n])).hexdigest(): draw(st.sampled_from(GROUPS)) for n in range(4)}
    in_view = draw(st.permutations(list(layers)))[: draw(st.integers(0, 3))]
    world = World(KEY, files, results, layers, tuple(in_view))
    for layer in layers:
        world.machine += draw(_layer_rows(world, layer))
    world.human = draw(_statements(world))
    world.threshold = draw(st.sampled_from((0.0, *SCORES)))
    labels = st.sampled_from((*LABELS, "boar"))
    world.label_thresholds = draw(st.dictionaries(labels, st.sampled_from(SCORES), max_size=2))
    return world


@st.composite
def _files(draw: st.DrawFn, number: int) -> list[File]:
    taken = draw(st.none() | HOURS.map(lambda hour: datetime(2026, 5, 14, hour)))
    cameras = draw(st.lists(st.sampled_from(("north", "south", None)), min_size=1, max_size=2))
    return [File(f"{n}/{number}.jpg", camera, taken, draw(st.booleans())) for n, camera in enumerate(cameras)]


@st.composite
def _layer_rows(draw: st.DrawFn, world: World, layer: str) -> list[Row]:
    """Draw rows of few targets, so that some are repeated or withdrawn at other times."""
    rows: list[Row] = []
    for key in (KEY, KEY, OTHER):
        images = sorted(world.results[key])
        for image in draw(st.lists(st.sampled_from(images), max_size=8)):
            if world.layers[layer] == "event":
                action = draw(st.sampled_from(("group", "group", "withdraw")))
                more = {"group_id": draw(st.sampled_from(("e1", "e2")))}
                rows.append(layer_says(layer, action, image, None, draw(HOURS), **more))
                continue
            rank = draw(st.integers(0, max(0, len(world.results[key][image]) - 1)))
            said = draw(_said(world.layers[layer]))
            rows.append(
                layer_says(layer, said.pop("action"), image, rank, draw(HOURS), **said) | {"inference_key": key}
            )
    return [identified({k: v for k, v in row.items() if k != "assertion_id"}) for row in rows]


@st.composite
def _said(draw: st.DrawFn, groups: str | None) -> dict[str, Any]:
    action = draw(st.sampled_from(("suppress", "relabel", "rescore", "group", "withdraw")))
    said: dict[str, Any] = {"action": action}
    if action == "relabel":
        said |= {"label": draw(st.sampled_from(LABELS))}
    if action == "rescore" or (action == "relabel" and draw(st.booleans())):
        said |= {"score": draw(st.sampled_from(SCORES)), "score_semantics": "softmax"}
    if action == "group" or (groups and action != "withdraw"):
        said |= {"group_id": draw(st.sampled_from(("o1", "o2")))}
    return said


@st.composite
def _statements(draw: st.DrawFn, world: World) -> list[Row]:
    """Draw statements about boxes near detections; some name the detection, and may have another box."""
    looked = [
        (key, image, rank, one)
        for key in (KEY, OTHER)
        for image, seen in world.results[key].items()
        for rank, one in enumerate(seen)
    ]
    said: dict[str, Row] = {}
    for _ in range(draw(st.integers(0, 12))):
        who = {"actor": draw(st.sampled_from(("kim", "lee", "ola"))), "hour": draw(HOURS)}
        if not looked or draw(st.integers(0, 4)) == 0:
            action = draw(st.sampled_from(("suppress", "suppress", "withdraw")))
            row = person(action, draw(st.sampled_from(sorted(world.files))), **who)
        else:
            key, image, rank, one = draw(st.sampled_from(looked))
            (x1, y1, x2, y2), (left, right) = one.box, draw(st.sampled_from(STRETCHES))
            action = draw(st.sampled_from(("keep", "relabel", "suppress", "add", "withdraw")))
            named = {"inference_key": key, "rank": rank} if draw(st.booleans()) else {}
            if action == "add":
                named = {}
            label = one.label if action == "suppress" else draw(st.sampled_from(LABELS))
            row = person(action, image, (x1 + left, y1, x2 + right, y2), label=label, **who, **named)
        said[row["assertion_id"]] = row
    for row in list(said.values()):
        if draw(st.integers(0, 3)) == 0:
            withdrawal = identified({**row, "action": "withdraw", "withdraws": row["assertion_id"]})
            said[withdrawal["assertion_id"]] = withdrawal
    return list(said.values())


@dataclass(frozen=True)
class Memory:
    """Fake of archive/delta/tables.py, with `of` as archive/delta/snapshot.py: the same rows, without a disk."""

    url: str
    tables: dict[str, pa.Table]

    def existing(self, name: str) -> pa.Table | None:
        return self.tables.get(name)

    @staticmethod
    def of(table: pa.Table | None, schema: pa.Schema) -> Dataset:
        if table is None:
            return dataset(schema.empty_table())
        assert table.schema == schema
        return dataset(table)


def as_tables(world: World) -> dict[str, pa.Table]:
    media = [
        {
            "media_sha256": image,
            "source_root": "/archive",
            "path": file.path,
            "camera_id": file.camera,
            "captured_at_local": file.taken.isoformat() if file.taken else None,
            "missing_since": NOON if file.missing else None,
        }
        for image, files in world.files.items()
        for file in files
    ]
    results = [
        result_rows([image], key, detections=[_detection(*one) for one in enumerate(seen)])
        for key, images in world.results.items()
        for image, seen in images.items()
    ]
    layers = [
        {
            "layer_id": layer,
            "kind": f"kind-{n}",
            "filter_version": 1,
            "config": "{}",
            "input_layers": [],
            "groups": groups,
            "made_at": NOON + timedelta(hours=n),
        }
        for n, (layer, groups) in enumerate(world.layers.items())
    ]
    return {
        "media": pa.Table.from_pylist(media, schema=MEDIA),
        "results": pa.concat_tables(results),
        "layers": pa.Table.from_pylist(layers, schema=LAYERS),
        "assertions": pa.Table.from_pylist(world.machine + world.human, schema=ASSERTIONS),
    }


def write(world: World, tables: Tables) -> Tables:
    for name, rows in as_tables(world).items():
        if len(rows):
            tables.append(name, rows, "test", lambda _, wanted: wanted)
    return tables


def view_of(world: World, **more: Any) -> View:
    fields = {"inference_key": world.key, "layers": world.in_view, "threshold": world.threshold}
    names = {"model_name": "m", "model_version": "1", "weights_sha256": "w"}
    labels = {"label_thresholds": world.label_thresholds}
    return View.model_validate({**fields, **names, **labels, **more})


def _detection(rank: int, one: Seen) -> dict[str, Any]:
    corners = dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), one.box, strict=True))
    return {
        "rank": rank,
        "label": one.label,
        "class_id": LABELS.index(one.label) if one.label in LABELS else len(LABELS),
        "score": one.score,
        **corners,
    }
