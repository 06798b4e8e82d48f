"""Small worlds to compare: images, what two keys say of them, what people say; as tables, or in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, MEDIA, RESULTS
from batch.publishing.impact.result_sets import ResultSet

OLD, NEW = "a" * 64, "b" * 64
Seen = tuple[str, float, tuple[float, float, float, float]]
"""Label, score, corners in px."""
NOON = datetime(2026, 5, 14, 12, tzinfo=UTC)


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def old_side(threshold: float = 0.0, **labels: float) -> ResultSet:
    return ResultSet(name="old", inference_key=OLD, threshold=threshold, label_thresholds=labels)


def new_side(threshold: float = 0.0, **labels: float) -> ResultSet:
    return ResultSet(name="new", inference_key=NEW, threshold=threshold, label_thresholds=labels)


@dataclass
class World:
    """Images by name; a side has None for an image that failed, and lacks one it has no result for."""

    files: dict[str, list[tuple[str | None, bool]]] = field(default_factory=dict)
    old: dict[str, Sequence[Seen] | None] = field(default_factory=dict)
    new: dict[str, Sequence[Seen] | None] = field(default_factory=dict)
    said: list[dict[str, Any]] = field(default_factory=list)

    def image(
        self,
        name: str,
        old: Sequence[Seen] | None = (),
        new: Sequence[Seen] | None = (),
        cameras: Iterable[str | None] = ("c1",),
    ) -> World:
        self.files[name] = [(camera, True) for camera in cameras]
        self.old[name], self.new[name] = old, new
        return self

    def say(self, action: str, name: str, label: str | None = None, box: Any = None, later_h: float = 0) -> World:
        corners = dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), box or [None] * 4, strict=True))
        about = {"layer_id": "human", "method": "human", "actor": "kim", "action": action}
        when = NOON + timedelta(hours=later_h)
        row = about | corners | {"media_sha256": sha(name), "label": label, "asserted_at": when}
        self.said.append({"assertion_id": f"s{len(self.said):03d}", **row})
        return self

    def media(self) -> pa.Table:
        rows = [
            {
                "media_sha256": sha(name),
                "source_root": "/archive",
                "path": f"{camera}/{number}/{name}.jpg",
                "camera_id": camera,
                "missing_since": None if there else NOON,
                "captured_at_local": "2026-05-14T12:00:00",
            }
            for name, files in self.files.items()
            for number, (camera, there) in enumerate(files)
        ]
        return pa.Table.from_pylist(rows, schema=MEDIA)

    def results(self, key: str, side: Mapping[str, Sequence[Seen] | None]) -> pa.Table:
        rows = [
            {
                "inference_key": key,
                "media_sha256": sha(name),
                "status": "failed" if seen is None else "ok",
                "detections": [
                    {"rank": rank, "label": label, "score": score}
                    | dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), box, strict=True))
                    for rank, (label, score, box) in enumerate(seen or ())
                ],
            }
            for name, seen in side.items()
        ]
        return pa.Table.from_pylist(rows, schema=RESULTS)

    def assertions(self) -> pa.Table:
        return pa.Table.from_pylist(self.said, schema=ASSERTIONS)

    def write(self, tables: Tables) -> Tables:
        """As real Delta tables."""
        for name, rows in (
            ("media", self.media()),
            ("results", self.results(OLD, self.old)),
            ("results", self.results(NEW, self.new)),
            ("assertions", self.assertions()),
        ):
            if len(rows):
                tables.append(name, rows, "test", lambda _, wanted: wanted)
        return tables

    def in_memory(self, patch: pytest.MonkeyPatch) -> Tables:
        """What `scan` gives is this world; nothing is written."""

        def scan(sql: Any, name: str, table: Any, schema: pa.Schema, key: str | None = None) -> None:
            rows = {
                "media": self.media,
                "results": lambda: self.results(str(key), self.old if key == OLD else self.new),
                "assertions": self.assertions,
            }[table]()
            sql.register(name, rows)

        patch.setattr("batch.publishing.impact.compare.scan", scan)
        patch.setattr("archive.annotations.assertions.scan", scan)
        patch.setattr("batch.publishing.impact.compare.Scratch", InMemoryScratch)
        return InMemory()


class InMemoryScratch:
    def __init__(self, *_: object, **__: object) -> None:
        self.sql = duckdb.connect()
        self.close = self.sql.close


class InMemory(Tables):
    def __init__(self) -> None:
        super().__init__("memory")

    def existing(self, name: str) -> Any:
        return name
