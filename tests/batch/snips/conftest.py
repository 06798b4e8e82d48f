"""An archive of small pictures with results of a model of two labels; snips made without a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import batch.snips.run
from archive.schemas import MEDIA
from archive.tables import Tables
from batch.plan import Plan, make_plan
from batch.policy import Snips
from batch.scope import Scope
from batch.snips.accounting import SnipCounts
from batch.snips.plan import SnipPlan, plan_snips
from batch.snips.run import make_snips
from batch.snips.write import SnipWriter
from batch.spec import RunSpec
from model_store.config import ModelConfig, OnnxRuntime, Thresholds
from model_store.store import ModelInfo, ModelVersion
from tests.fixtures_local import encoded, put_results, result_rows, rows_of, write_files

KEY = "0123456789abcdef" * 4
Found = tuple[float, str, tuple[float, float, float, float]]
"""A detection: score, label, box."""


def model_of(thresholds: Thresholds | None = None) -> ModelVersion:
    """Labels cat and dog; shown from 0.5, dogs from 0.7."""
    thresholds = thresholds or Thresholds(default=0.5, per_label={"dog": 0.7})
    config = ModelConfig(
        runtime=OnnxRuntime(), decoder="ssd", labels=("cat", "dog"), thresholds=thresholds
    )
    return ModelVersion(ModelInfo("pets", "1", "w" * 64, KEY, config.labels), config, {})


def picture(seed: int, width_px: int = 60, height_px: int = 40) -> np.ndarray:
    """Blocks of colour that differ from each other, and that JPEG keeps nearly as they are."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height_px // 10, width_px // 10, 3))
    return np.kron(blocks, np.ones((10, 10, 1))).astype(np.uint8)


def detections(found: Sequence[Found]) -> list[dict[str, Any]]:
    labels = ("cat", "dog")
    return [
        {"rank": rank, "label": label, "class_id": labels.index(label), "score": score}
        | dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), box, strict=True))
        for rank, (score, label, box) in enumerate(found)
    ]


@dataclass
class Bench:
    """Files below `root`, catalogued and seen as the tests say; snips in `url`."""

    root: Path
    tables: Tables
    url: str
    model: ModelVersion

    @property
    def key(self) -> str:
        return self.model.info.inference_key

    def add(
        self, path: str, data: bytes, found: Sequence[Found], size_px: tuple[int, int] = (60, 40)
    ) -> str:
        """Its digest."""
        sha = self.catalogue(path, data)
        more = {"width_px": size_px[0], "height_px": size_px[1], "n_detections": len(found)}
        rows = result_rows([sha], self.key, detections=detections(found), **more)
        put_results(self.tables, rows)
        return sha

    def catalogue(self, path: str, data: bytes) -> str:
        write_files(self.root, {path: data})
        sha = hashlib.sha256(data).hexdigest()
        row = {"media_sha256": sha, "source_root": str(self.root), "path": path}
        row |= {"size_bytes": len(data), "camera_id": path.split("/")[0]}
        media = pa.Table.from_pylist([row], schema=MEDIA)
        self.tables.append("media", media, "test", lambda _, wanted: wanted)
        return sha

    def plan(self, scope: Scope | None = None) -> Plan:
        return make_plan(self.tables, self.model, scope or Scope())

    def snip_plan(self, snips: Snips | None = None, **spec: Any) -> SnipPlan:
        return plan_snips(self.tables, self.plan(), spec_of(snips=snips or Snips(), **spec))

    def run(self, run_id: str = "r1", snips: Snips | None = None, **spec: Any) -> SnipCounts:
        """The pass of one run; needs `without_ray`."""
        asked = spec_of(run_id=run_id, snips=snips or Snips(), **spec)
        return make_snips(asked, self.plan(asked.scope), self.url, self.tables)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return sorted(rows_of(self.tables, "snips"), key=lambda row: row["media_sha256"])

    @property
    def files(self) -> dict[str, bytes]:
        """Every file there is in the folder of snips."""
        root = Path(self.url)
        found = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


def spec_of(**fields: Any) -> RunSpec:
    return RunSpec.model_validate({"run_id": "r1", "model": "pets"} | fields)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    root = write_files(tmp_path / "archive", {"note.txt": b"somebody's"})
    return Bench(root, Tables(str(tmp_path / "tables")), str(tmp_path / "snips"), model_of())


@pytest.fixture
def three(bench: Bench) -> Mapping[str, str]:
    """Name to digest: `both` shows a cat and a dog, `one` a cat, `none` nothing from the thresholds on."""
    cat, dog = (10.0, 10.0, 30.0, 20.0), (30.0, 0.0, 60.0, 40.0)
    shown: dict[str, Sequence[Found]] = {
        "both": [(0.9, "cat", cat), (0.8, "dog", dog), (0.3, "cat", dog)],
        "one": [(0.69, "dog", dog), (0.6, "cat", cat)],
        "none": [(0.4, "cat", cat)],
    }
    return {
        name: bench.add(f"{name}/a.png", encoded(picture(seed), "PNG"), found)
        for seed, (name, found) in enumerate(shown.items())
    }


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Chunks of one image in this process, in the plan's order; `turn()` turns the order round."""
    backwards: list[bool] = []

    def tables(spec: RunSpec, plan: SnipPlan, url: str) -> Iterator[pa.Table]:
        writer = SnipWriter(plan.model, plan.cut, url, spec.megapixels * 1_000_000)
        windows = sorted(plan.windows(1), key=lambda w: str(w["media_sha256"][0]))
        for window in reversed(windows) if backwards else windows:
            yield writer.table(window, spec.run_id)

    monkeypatch.setattr(batch.snips.run, "snip_tables", tables)
    return lambda: backwards.append(True)
