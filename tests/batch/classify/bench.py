"""Published detections, and a classifier of colours, without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

import batch.planning.plan
from archive.delta.tables import Tables
from archive.schemas import CLASSIFICATIONS
from archive.views.views import View, Views
from batch.classify.plan import classify_pass
from batch.classify.rows import classification_table, classify_target
from batch.crops.model_pass import CropModelPass
from batch.crops.model_rows import Target, detection_id
from batch.crops.model_stage import cut, in_chunks
from batch.planning.plan import Plan, plan_pass
from batch.runs.accounting import Counts
from batch.runs.run import RunReport, execute
from batch.runs.spec import ClassifySpec, CropsSpec
from model_store.config import ClassifierConfig, OnnxRuntime, Preprocess
from model_store.store import ModelInfo, ModelStore, ModelVersion
from serve.inference.chunks import CropsAnswer
from tests.batch.box_bench import KEY, BoxBench, without_ray
from tests.fixtures_local import write_files
from tests.support.hosts import HOST

COLOURS = ("red", "green", "blue")


def classifier(key: str = "c" * 64, labels: tuple[str, ...] = COLOURS) -> ModelVersion:
    config = ClassifierConfig(
        kind="classifier", runtime=OnnxRuntime(), preprocess=Preprocess(resize="stretch", side_px=8), labels=labels
    )
    return ModelVersion(ModelInfo("colours", "1", "v" * 64, key, labels), config, {})


def spec_of(**fields: Any) -> ClassifySpec:
    return ClassifySpec.model_validate({"run_id": "r1", "model": "colours@1"} | fields)


@dataclass
class ClassifyBench(BoxBench):
    """Detections are published. Crops in `broken` (detection ids) fail in the replica."""

    table, units = "classifications", "detections"
    labels, another = ("animal", "person", "vehicle"), {"margin_frac": 1.0}

    model: ModelVersion = field(default_factory=classifier)
    broken: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    """Detection ids that a replica has received, in order."""

    def publish(self, key: str = KEY, threshold: float = 0.5, name: str = "production", **labels: float) -> View:
        views = Views(self.tables.url)
        now = views.current(name)
        fields: dict[str, Any] = {"inference_key": key, "model_name": "finder"}
        fields |= {"model_version": "1", "weights_sha256": "w", "name": name}
        view = View(**fields, threshold=threshold, label_thresholds=labels)
        return views.publish(view, after=now.serial if now else 0)

    spec_of: ClassVar[Callable[..., CropsSpec]] = staticmethod(spec_of)
    pass_of: ClassVar[Callable[..., CropModelPass]] = staticmethod(classify_pass)
    table_of: ClassVar[Callable[..., pa.Table]] = staticmethod(classification_table)
    schema: ClassVar[pa.Schema] = CLASSIFICATIONS

    def plan(self, read_only: bool = True, **fields: Any) -> Plan:
        spec = self.spec_of(**fields)
        work = self.pass_of(self.tables, self.store, spec, self.model)
        return plan_pass(self.tables, work, spec.scope, read_only)

    @property
    def store(self) -> ModelStore:
        return ModelStore(str(self.root.parent / "models"))

    def run(self, run_id: str = "r1", **fields: Any) -> RunReport:
        """Execute one run; needs `without_ray`."""
        return execute(self.spec_of(run_id=run_id, **fields), self.tables, self.store, HOST)

    def counts(self, run_id: str = "r1", **fields: Any) -> Counts:
        return self.run(run_id, **fields).counts

    def put(self, of: Sequence[tuple[str, int]], status: str = "ok", **more: Any) -> None:
        same = {**self.target().key, "status": status, "run_id": "r0", **more}
        rows = [
            {"media_sha256": sha, "rank": rank, "detection_id": detection_id(sha, rank), **same} for sha, rank in of
        ]
        table = pa.Table.from_pylist(rows, schema=self.schema)
        self.tables.append(self.table, table, "test", lambda _, wanted: wanted)

    def target(self) -> Target:
        return classify_target(KEY, self.model, 0.0)

    def without_ray(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        monkeypatch.setattr(batch.planning.plan, "pinned", lambda *_: self.model)
        return without_ray(self, monkeypatch)

    def chunks(self, plan: Plan, spec: Any, window: pa.Table) -> Iterator[pa.Table]:
        work, info = plan.work, plan.model.info
        assert isinstance(work, CropModelPass)
        for crops in in_chunks(cut(window, spec, plan.model)):
            answer = self._answer(crops)
            yield self.table_of(spec.run_id, info, work.target, crops, answer, 2.0, "node")

    def _answer(self, crops: Sequence[Any]) -> CropsAnswer | None:
        inputs = [crop.input for crop in crops if crop.input is not None]
        names = [detection_id(c.media_sha256, c.rank) for c in crops if c.input is not None]
        self.asked += names
        if not inputs:
            return None
        logits, times = colour_logits(np.stack(inputs)), np.ones(len(inputs), np.float32)
        errors = tuple("model: no colour" if name in self.broken else None for name in names)
        logits[[error is not None for error in errors]] = np.nan
        return CropsAnswer(self.model.info, logits, times, times, errors)

    @property
    def rows(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return the rows by (image, rank). Fails if a detection has two rows."""
        by_detection = {(row["media_sha256"], row["rank"]): row for row in self.stored}
        assert len(by_detection) == len(self.stored)
        return by_detection

    @property
    def states(self) -> dict[tuple[str, int], tuple[str, str | None, str]]:
        return {which: (row["status"], row["error_code"], row["run_id"]) for which, row in self.rows.items()}


def colour_logits(inputs: np.ndarray) -> np.ndarray:
    """Return the mean of each colour, in steps of 16, of images (n, h, w, 3)."""
    return (inputs.mean(axis=(1, 2)) / 16).astype(np.float32)


def make(place: Path) -> ClassifyBench:
    root = write_files(place / "archive", {"note.txt": b"somebody's"})
    return ClassifyBench(root, Tables(str(place / "tables")))
