"""The Ray Data graph of a run, as one chain, and its results as they come.

plan.todo -> blocks of one chunk each -> DetectStage actors -> tables of result rows, in any order
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from batch.detect_stage import DetectStage
from batch.plan import Plan
from batch.spec import RunSpec, images_per_chunk
from serve.settings import usable_cores

STAGE_CPUS = 0.5  # logical: a fraction, so that a small cluster never waits for itself
MAX_RESTARTS, MAX_TASK_RETRIES = 20, 3
"""Of an actor and of a chunk: nodes may come and go, but an image that kills its reader (Ray's default is
to try for ever) ends the run with an error."""


def result_tables(spec: RunSpec, plan: Plan, pool: str) -> Iterator[pa.Table]:
    """Tables in the schema of `results`. Unknown errors of a stage are raised and end the run."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    threads = spec.threads or usable_cores() + 1
    size = images_per_chunk(spec.chunk, plan.model.config.preprocess)
    chunks = math.ceil(len(plan.todo) / size)
    # from_items makes its blocks here; from_arrow would start a worker per block to look at it
    todo = ray.data.from_items(plan.todo.to_pylist(), override_num_blocks=chunks)
    detected = todo.map_batches(
        DetectStage,
        fn_constructor_args=(spec, plan.model, pool),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=STAGE_CPUS,
        max_restarts=MAX_RESTARTS,
        max_task_retries=MAX_TASK_RETRIES,
        compute=ActorPoolStrategy(
            size=spec.actors,
            max_concurrent_calls_per_actor=threads,
            max_tasks_in_flight_per_actor=2 * threads,
            enable_true_multi_threading=True,
        ),
    )
    yield from detected.iter_batches(batch_size=None, batch_format="pyarrow")
