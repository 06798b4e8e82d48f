"""Evaluate a filter run in processes of the cluster with Ray Data.

parts (pa.Table) -> object store, WINDOW at a time -> JudgeStage actors -> Evaluated, in any order
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from archive.delta.arrow_stream import as_stream, from_stream
from batch.filters.evaluate import Evaluated, FilterCounts, Question, evaluate
from model_store.machine import usable_cores
from serve.inference.os_priority import lower_process_priority

JUDGE_CPUS = 0.5  # logical: a fraction, so that a small cluster cannot deadlock
WINDOW = 64
"""Parts in the object store at a time, about 0.5 GB. Actors live for one window."""


class JudgeStage:
    """Callable class for `map_batches`: part numbers in; rows to add and their counts out."""

    def __init__(self, question: Question, parts: list[ray.ObjectRef[pa.Table]]) -> None:
        lower_process_priority()
        self._question, self._parts = question, parts

    def __call__(self, numbers: pa.Table) -> pa.Table:
        judged = [self._judged(number) for number in numbers["part"].to_pylist()]
        return pa.Table.from_pylist(judged)

    def _judged(self, number: int) -> dict[str, Any]:
        evaluated = evaluate(ray.get(self._parts[number]), self._question)
        return {"rows": as_stream(evaluated.rows), **asdict(evaluated.tally)}


def on_cluster(parts: Iterable[pa.Table], question: Question) -> Iterator[Evaluated]:
    """Evaluate the parts in as many processes as there are cores. Raises any error of the filter."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    remaining = iter(parts)
    while window := [ray.put(part) for part in islice(remaining, WINDOW)]:
        numbers = [{"part": number} for number in range(len(window))]
        judged = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
            JudgeStage,
            fn_constructor_args=(question, window),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=JUDGE_CPUS,
            compute=ActorPoolStrategy(size=min(len(window), usable_cores())),
        )
        tables: Iterable[Any] = judged.iter_batches(batch_size=None, batch_format="pyarrow")
        for table in tables:
            for row in table.to_pylist():
                yield Evaluated(from_stream(row.pop("rows")), FilterCounts(**row))
