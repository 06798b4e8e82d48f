"""The stage of snips inside a Ray Data actor: rows of a plan in, rows of `snips` out.

Several threads of the actor work on several chunks: while one waits for storage, others decode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import pyarrow as pa
import ray

from batch.pipeline import WINDOW_CHUNKS, through
from batch.snips.plan import SnipPlan
from batch.snips.settings import Cut
from batch.snips.write import SnipWriter
from batch.spec import RunSpec
from model_store.store import ModelVersion
from serve.priority import give_way_all

CHUNK = 16
"""Images: of 12 megapixels some seconds of one thread, so that rows come as often as they are committed."""


class SnipStage:
    """A callable class for `map_batches`; built once per actor. `parts` as in `DetectStage`."""

    def __init__(
        self,
        spec: RunSpec,
        model: ModelVersion,
        cut: Cut,
        url: str,
        parts: Sequence[ray.ObjectRef[pa.Table]],
    ) -> None:
        cv2.setNumThreads(1)
        give_way_all()
        self._run_id, self._parts_of_plan = spec.run_id, parts
        self._writer = SnipWriter(model, cut, url, spec.megapixels * 1_000_000)

    def __call__(self, chunks: pa.Table) -> pa.Table:
        return pa.concat_tables([self._chunk(**chunk) for chunk in chunks.to_pylist()])

    def _chunk(self, part: int, first: int, rows: int) -> pa.Table:
        planned = ray.get(self._parts_of_plan[part]).slice(first, rows)
        return self._writer.table(planned, self._run_id)


def snip_tables(spec: RunSpec, plan: SnipPlan, url: str) -> Iterator[pa.Table]:
    """Rows of `snips` with `replaces`, in any order, as they come. Raises what a stage raises."""
    arguments = (spec, plan.model, plan.cut, url)
    for window in plan.windows(WINDOW_CHUNKS * CHUNK):
        yield from through(SnipStage, arguments, spec, window, CHUNK)
