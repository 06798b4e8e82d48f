"""Make snips: rows of a plan in, rows of `snips` out."""

from __future__ import annotations

import pyarrow as pa

from batch.crops.settings import Cut
from batch.crops.write import SnipWriter
from batch.pipeline.stage import Stage, StageProcess
from batch.runs.spec import RunSpec
from model_store.store import ModelVersion


class SnipStage(Stage):
    """The stage of the pass over snips, which needs no replica."""

    def __init__(self, process: StageProcess, spec: RunSpec, model: ModelVersion, cut: Cut, url: str) -> None:
        super().__init__(process)
        self._run_id = spec.run_id
        self._writer = SnipWriter(model, cut, url, spec.megapixels * 1_000_000)

    def rows(self, planned: pa.Table) -> pa.Table:
        return self._writer.table(planned, self._run_id)
