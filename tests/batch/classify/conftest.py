"""An archive of small pictures with detections of a published view; a classifier of colours, without a cluster."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import batch.classify.run
from archive.schemas import CLASSIFICATIONS, MEDIA
from archive.tables import Tables
from archive.views import View, Views
from batch.classify.plan import CropPlan, plan_crops
from batch.classify.rows import classification_table
from batch.classify.run import ClassifyReport, execute
from batch.classify.spec import ClassifySpec
from batch.classify.stage import cut, in_chunks
from batch.classify.target import detection_id, target_of
from model_store.config import ClassifierConfig, OnnxRuntime, Preprocess
from model_store.store import ModelInfo, ModelStore, ModelVersion
from serve.chunks import LogitsAnswer
from tests.fixtures_local import encoded, put_results, result_rows, rows_of, write_files

KEY = "0123456789abcdef" * 4
COLOURS = ("red", "green", "blue")
Found = tuple[float, str, tuple[float, float, float, float]]
"""A detection: score, label, box."""


def classifier(key: str = "c" * 64, labels: tuple[str, ...] = COLOURS) -> ModelVersion:
    config = ClassifierConfig(
        kind="classifier",
        runtime=OnnxRuntime(),
        preprocess=Preprocess(resize="stretch", side_px=8),
        labels=labels,
    )
    return ModelVersion(ModelInfo("colours", "1", "v" * 64, key, labels), config, {})


def picture(seed: int, width_px: int = 60, height_px: int = 40) -> np.ndarray:
    """Blocks of colour that differ from each other."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height_px // 10, width_px // 10, 3))
    return np.kron(blocks, np.ones((10, 10, 1))).astype(np.uint8)


def png(seed: int) -> bytes:
    return encoded(picture(seed), "PNG")


def detections(found: Sequence[Found]) -> list[dict[str, Any]]:
    labels = ("animal", "person", "vehicle")
    return [
        {"rank": rank, "label": label, "class_id": labels.index(label), "score": score}
        | dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), box, strict=True))
        for rank, (score, label, box) in enumerate(found)
    ]


def spec_of(**fields: Any) -> ClassifySpec:
    return ClassifySpec.model_validate({"run_id": "r1", "model": "colours@1"} | fields)


@dataclass
class Bench:
    """Files below `root`, catalogued and seen as the tests say. `broken` crops (detection ids) fail in the replica."""

    root: Path
    tables: Tables
    model: ModelVersion = field(default_factory=classifier)
    broken: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    """Detection ids that a replica was asked about, in order."""

    def add(
        self,
        path: str,
        data: bytes,
        found: Sequence[Found],
        size_px: tuple[int, int] = (60, 40),
        key: str = KEY,
    ) -> str:
        """Its digest."""
        sha = self.catalogue(path, data)
        more: dict[str, Any] = {
            "width_px": size_px[0],
            "height_px": size_px[1],
            "n_detections": len(found),
        }
        put_results(self.tables, result_rows([sha], key, detections=detections(found), **more))
        return sha

    def catalogue(self, path: str, data: bytes) -> str:
        write_files(self.root, {path: data})
        sha = hashlib.sha256(data).hexdigest()
        row = {"media_sha256": sha, "source_root": str(self.root), "path": path}
        row |= {"size_bytes": len(data), "camera_id": path.split("/")[0]}
        media = pa.Table.from_pylist([row], schema=MEDIA)
        self.tables.append("media", media, "test", lambda _, wanted: wanted)
        return sha

    def publish(
        self, key: str = KEY, threshold: float = 0.5, name: str = "production", **labels: float
    ) -> View:
        views = Views(self.tables.url)
        now = views.current(name)
        fields: dict[str, Any] = {"inference_key": key, "model_name": "finder"}
        fields |= {"model_version": "1", "weights_sha256": "w", "name": name}
        view = View(**fields, threshold=threshold, label_thresholds=labels)
        return views.publish(view, after=now.serial if now else 0)

    def plan(self, read_only: bool = True, **fields: Any) -> CropPlan:
        view = Views(self.tables.url).current(fields.get("view", "production"))
        assert view is not None
        return plan_crops(self.tables, view, self.model, spec_of(**fields), read_only)

    def run(self, run_id: str = "r1", **fields: Any) -> ClassifyReport:
        """One run; needs `without_ray`."""
        store = ModelStore(str(self.root.parent / "models"))
        return execute(spec_of(run_id=run_id, **fields), self.tables, store)

    def classified(
        self, of: Sequence[tuple[str, int]], status: str = "ok", run_id: str = "r0", **more: Any
    ) -> None:
        """Rows of `classifications`, as another run has made them."""
        target = target_of(KEY, self.model, 0.0)
        same = {**target.key, "status": status, "run_id": run_id, **more}
        rows = [
            {"media_sha256": sha, "rank": rank, "detection_id": detection_id(sha, rank), **same}
            for sha, rank in of
        ]
        table = pa.Table.from_pylist(rows, schema=CLASSIFICATIONS)
        self.tables.append("classifications", table, "test", lambda _, wanted: wanted)

    @property
    def rows(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Image and rank to the row; two rows of one detection are an error."""
        found = rows_of(self.tables, "classifications")
        by_detection = {(row["media_sha256"], row["rank"]): row for row in found}
        assert len(by_detection) == len(found)
        return by_detection

    @property
    def states(self) -> dict[tuple[str, int], tuple[str, str | None, str]]:
        return {
            which: (row["status"], row["error_code"], row["run_id"])
            for which, row in self.rows.items()
        }


def due(plan: CropPlan) -> dict[str, list[int]]:
    """Digest to the ranks that are to be classified."""
    rows = [row for window in plan.windows(2) for row in window.to_pylist()]
    assert len(rows) == plan.images
    assert sum(len(row["boxes"]) for row in rows) == plan.todo
    assert sum(row["size_bytes"] for row in rows) == plan.todo_bytes
    return {row["media_sha256"]: [box["rank"] for box in row["boxes"]] for row in rows}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    root = write_files(tmp_path / "archive", {"note.txt": b"somebody's"})
    return Bench(root, Tables(str(tmp_path / "tables")))


@pytest.fixture
def three(bench: Bench) -> dict[str, str]:
    """Name to digest, published: `both` shows an animal and a person, `one` an animal of rank 1, `none` nothing."""
    small, large = (10.0, 10.0, 30.0, 20.0), (30.0, 0.0, 60.0, 40.0)
    shown: dict[str, Sequence[Found]] = {
        "both": [(0.9, "animal", small), (0.8, "person", large), (0.3, "animal", large)],
        "one": [(0.69, "person", large), (0.6, "animal", small)],
        "none": [(0.4, "animal", small)],
    }
    bench.publish(person=0.7)
    return {
        name: bench.add(f"{name}/a.png", png(seed), found)
        for seed, (name, found) in enumerate(shown.items())
    }


def colour_logits(inputs: np.ndarray) -> np.ndarray:
    """(n, h, w, 3) to the mean of each colour, in steps of 16."""
    return (inputs.mean(axis=(1, 2)) / 16).astype(np.float32)


@pytest.fixture
def without_ray(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """One image at a time in this process, in the order of their digests; `turn()` turns it round."""
    backwards: list[bool] = []

    def answer(crops: Sequence[Any]) -> LogitsAnswer | None:
        inputs = [crop.input for crop in crops if crop.input is not None]
        names = [detection_id(c.media_sha256, c.rank) for c in crops if c.input is not None]
        bench.asked += names
        if not inputs:
            return None
        logits, times = colour_logits(np.stack(inputs)), np.ones(len(inputs), np.float32)
        errors = tuple("model: no colour" if name in bench.broken else None for name in names)
        logits[[error is not None for error in errors]] = np.nan
        return LogitsAnswer(bench.model.info, logits, bench.model.info.labels, times, times, errors)

    def tables(spec: ClassifySpec, plan: CropPlan, pool: str) -> Iterator[pa.Table]:
        assert pool == "default"
        windows = sorted(plan.windows(1), key=lambda w: str(w["media_sha256"][0]))
        for window in reversed(windows) if backwards else windows:
            for crops in in_chunks(cut(window, spec, plan.model)):
                info = plan.model.info
                yield classification_table(
                    spec.run_id, info, plan.target, crops, answer(crops), 2.0, "node"
                )

    monkeypatch.setattr(batch.classify.run, "classification_tables", tables)
    monkeypatch.setattr(batch.classify.run, "leased", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(batch.classify.run, "pinned", lambda *_: bench.model)
    return lambda: backwards.append(True)
