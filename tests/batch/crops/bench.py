"""Results of a model of two labels; snips made without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import SNIPS
from batch.crops.plan import SnipPass, plan_snips
from batch.crops.write import SnipStage, cut_of
from batch.pipeline.stage import StageProcess
from batch.planning.passes import DetectPass
from batch.planning.plan import Plan, plan_pass
from batch.runs.accounting import Counts
from batch.runs.run import PassRun
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from batch.schedule.policy import Snips
from model_store.config import ModelConfig, OnnxRuntime, Thresholds
from model_store.store import ModelInfo, ModelVersion
from tests.batch.box_bench import KEY, BoxBench, without_ray
from tests.fixtures_local import write_files
from tests.support.hosts import HOST


def model_of(thresholds: Thresholds | None = None) -> ModelVersion:
    """Labels cat and dog; shown from 0.5, dogs from 0.7."""
    thresholds = thresholds or Thresholds(default=0.5, per_label={"dog": 0.7})
    config = ModelConfig(runtime=OnnxRuntime(), decoder="ssd", labels=("cat", "dog"), thresholds=thresholds)
    return ModelVersion(ModelInfo("pets", "1", "w" * 64, KEY, config.labels), config, {})


@dataclass
class SnipBench(BoxBench):
    """Detections of `model`, and a folder of snips, `url`."""

    table, units = "snips", "images"
    labels, another = ("cat", "dog"), {"snips": Snips(quality=50)}

    model: ModelVersion = field(default_factory=model_of)
    url: str = ""

    @property
    def key(self) -> str:
        return self.model.info.inference_key

    def detection_plan(self, scope: Scope | None = None) -> Plan:
        return plan_pass(self.tables, DetectPass(self.model), scope or Scope())

    def plan(self, read_only: bool = False, **fields: Any) -> Plan:
        spec = spec_of(**{"snips": Snips()} | fields)
        return plan_snips(self.tables, self.detection_plan(spec.scope), spec, read_only)

    def counts(self, run_id: str = "r1", **fields: Any) -> Counts:
        spec = spec_of(**{"run_id": run_id, "snips": Snips()} | fields)
        plan = plan_snips(self.tables, self.detection_plan(spec.scope), spec)
        work = replace(plan.work, url=self.url)  # type: ignore[call-arg]  # a SnipPass
        run = PassRun(spec, work, self.tables, HOST)
        return run.carry_out(replace(plan, work=work))

    def put(self, of: Sequence[tuple[str, int]], status: str = "ok", **more: Any) -> None:
        settings_key = cut_of(Snips(), self.model.detector_config).key
        row = {"inference_key": KEY, "settings_key": settings_key, "status": status}
        row |= {"run_id": "r0", "names": [], "bytes": 0} | more
        digests = dict.fromkeys(sha for sha, _ in of)
        rows = pa.Table.from_pylist([row | {"media_sha256": sha} for sha in digests], schema=SNIPS)
        self.tables.append("snips", rows, "test", lambda _, wanted: wanted)

    def without_ray(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        return without_ray(self, monkeypatch)

    def chunks(self, plan: Plan, spec: Any, window: pa.Table) -> Iterator[pa.Table]:
        work = plan.work
        assert isinstance(work, SnipPass)
        yield SnipStage(StageProcess("node", False, None), spec, plan.model, work.cut, work.url).rows(window)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return sorted(self.stored, key=lambda row: row["media_sha256"])

    @property
    def files(self) -> dict[str, bytes]:
        """Return every file in the folder of snips."""
        root = Path(self.url)
        found = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


def spec_of(**fields: Any) -> RunSpec:
    return RunSpec.model_validate({"run_id": "r1", "model": "pets"} | fields)


def make(place: Path) -> SnipBench:
    root = write_files(place / "archive", {"note.txt": b"somebody's"})
    return SnipBench(root, Tables(str(place / "tables")), url=str(place / "snips"))
