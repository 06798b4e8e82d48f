"""An archive of small images with stored detections, for passes over boxes; they run without a cluster.

ClassifyBench (`tests/batch/classify/bench.py`) and SnipBench (`tests/batch/crops/bench.py`) add their pass.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from batch.planning.plan import Plan
from batch.runs.accounting import Counts
from model_store.store import ModelVersion
from tests.fixtures_local import encoded, put_results, result_rows, rows_of, write_files
from tests.support.hosts import HOST

KEY = "0123456789abcdef" * 4
Found = tuple[float, str, tuple[float, float, float, float]]
"""A detection: score, label, box."""
BOX = (10.0, 10.0, 30.0, 20.0)


def picture(seed: int, width_px: int = 60, height_px: int = 40) -> np.ndarray:
    """Return an image of blocks with distinct colours, which JPEG keeps nearly as they are."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height_px // 10, width_px // 10, 3))
    return np.kron(blocks, np.ones((10, 10, 1))).astype(np.uint8)


def png(seed: int) -> bytes:
    return encoded(picture(seed), "PNG")


@dataclass
class BoxBench(ABC):
    """Files below `root`, catalogued and detected. `labels` are those of the detector."""

    table: ClassVar[str]
    units: ClassVar[str]
    labels: ClassVar[tuple[str, ...]]
    another: ClassVar[dict[str, Any]]
    """Fields of a spec with rows of its own."""

    root: Path
    tables: Tables
    model: ModelVersion

    def add(
        self, path: str, data: bytes, found: Sequence[Found], size_px: tuple[int, int] = (60, 40), key: str = ""
    ) -> str:
        """Add an image and return its digest."""
        (sha,) = self.add_all({path: (data, found)}, size_px, key)
        return sha

    def add_all(
        self, images: dict[str, tuple[bytes, Sequence[Found]]], size_px: tuple[int, int] = (60, 40), key: str = ""
    ) -> list[str]:
        """Add images by path, and return their digests."""
        digests = self.catalogue_all({path: data for path, (data, _) in images.items()})
        rows = [
            result_rows(
                [sha],
                key or self.key,
                width_px=size_px[0],
                height_px=size_px[1],
                n_detections=len(found),
                detections=self.detections(found),
            )
            for sha, (_, found) in zip(digests, images.values(), strict=True)
        ]
        put_results(self.tables, pa.concat_tables(rows))
        return digests

    @property
    def key(self) -> str:
        """Return the inference key of the detections."""
        return KEY

    def catalogue(self, path: str, data: bytes) -> str:
        return self.catalogue_all({path: data})[0]

    def catalogue_all(self, files: dict[str, bytes]) -> list[str]:
        write_files(self.root, files)
        rows = [
            {
                "media_sha256": hashlib.sha256(data).hexdigest(),
                "source_root": str(self.root),
                "path": path,
                "size_bytes": len(data),
                "camera_id": path.split("/")[0],
            }
            for path, data in files.items()
        ]
        media = pa.Table.from_pylist(rows, schema=MEDIA)
        self.tables.append("media", media, "test", lambda _, wanted: wanted)
        return [row["media_sha256"] for row in rows]

    @classmethod
    def detections(cls, found: Sequence[Found]) -> list[dict[str, Any]]:
        corners = ("x1_px", "y1_px", "x2_px", "y2_px")
        return [
            {"rank": rank, "label": label, "class_id": cls.labels.index(label), "score": score}
            | dict(zip(corners, box, strict=True))
            for rank, (score, label, box) in enumerate(found)
        ]

    def three(self) -> dict[str, str]:
        """Add images, by name: `both` shows both labels, `one` the first label as rank 1, `none` nothing."""
        large, (first, second, *_) = (30.0, 0.0, 60.0, 40.0), self.labels
        shown: dict[str, Sequence[Found]] = {
            "both": [(0.9, first, BOX), (0.8, second, large), (0.3, first, large)],
            "one": [(0.69, second, large), (0.6, first, BOX)],
            "none": [(0.4, first, BOX)],
        }
        images = {f"{name}/a.png": (png(seed), found) for seed, (name, found) in enumerate(shown.items())}
        return dict(zip(shown, self.add_all(images), strict=True))

    def due(self, plan: Plan) -> dict[str, list[int]]:
        """Map digests to the ranks of the boxes to cut."""
        rows = self.todo(plan)
        assert len(rows) == plan.images
        assert sum(len(row["boxes"]) for row in rows) == plan.rows
        assert sum(row["size_bytes"] for row in rows) == plan.todo_bytes
        return {row["media_sha256"]: [box["rank"] for box in row["boxes"]] for row in rows}

    def todo(self, plan: Plan) -> list[dict[str, Any]]:
        return [row for window in plan.windows(2) for row in window.to_pylist()]

    @property
    def stored(self) -> list[dict[str, Any]]:
        return rows_of(self.tables, self.table)

    @abstractmethod
    def plan(self, read_only: bool = True, **fields: Any) -> Plan:
        """Return the plan of a run; `fields` are those of its spec."""

    @abstractmethod
    def without_ray(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """Execute stages in this process; see `without_ray`."""

    @abstractmethod
    def counts(self, run_id: str = "r1", **fields: Any) -> Counts:
        """Execute the pass of one run; needs `without_ray`."""

    @abstractmethod
    def put(self, of: Sequence[tuple[str, int]], status: str = "ok", **more: Any) -> None:
        """Add rows of the table for these detections, as made by another run."""

    @abstractmethod
    def chunks(self, plan: Plan, spec: Any, window: pa.Table) -> Iterator[pa.Table]:
        """Yield what the stage returns for a window of one image."""


def without_ray(bench: BoxBench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Cut one image at a time in this process, in order of digests; the returned function reverses the order."""
    backwards: list[bool] = []

    def rows(spec: Any, plan: Plan) -> Iterator[pa.Table]:
        windows = sorted(plan.windows(1), key=lambda w: str(w["media_sha256"][0]))
        for window in reversed(windows) if backwards else windows:
            yield from bench.chunks(plan, spec, window)

    monkeypatch.setattr(HOST, "rows", rows)
    return lambda: backwards.append(True)
