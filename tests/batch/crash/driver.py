"""One driver of a run in a process of its own. All of it is real except the replicas, which do not exist, and the
first publication, which is left out.

Task -> drive(task) -> exit code as of `python -m batch.reprocess`; what was inferred is in `task.inferred`.
What an image shows is made of its digest. The stage works on one chunk at a time, so that all that is inferred
and not committed is in the committer's hands; and the committer's clock goes by chunks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

import archive.delta.tables
import batch.pipeline.commit
import batch.runs.post_run
import batch.runs.run
from archive.delta.tables import Tables
from batch.jobs.exit_codes import exit_code
from batch.pipeline.commit import Committer
from batch.planning.plan import Plan
from batch.runs.spec import RunSpec
from model_store.errors import ResightError
from model_store.store import ModelStore
from tests.batch.crash.faults import Fault, Faulty
from tests.fixtures_local import MODELS, result_rows
from tests.support.hosts import HOST

CHUNK_IMAGES, COMMIT_CHUNKS = 4, 3
INTERVAL_IMAGES = CHUNK_IMAGES * COMMIT_CHUNKS
TURN_S = 60


@dataclass(frozen=True)
class Task:
    """`meet` is a barrier of drivers that are to have planned before one of them commits."""

    tables: str
    spec: RunSpec
    inferred: str
    said: str
    orders: str
    fault: Fault | None = None
    meet: Any = None
    environment: Mapping[str, str] = field(default_factory=dict)


def seen(digest: str) -> dict[str, Any]:
    """What an image of this digest shows: in ten images, one is damaged and three are empty."""
    kind = int(digest[:8], 16) % 10
    if kind == 0:
        return {"status": "failed", "error_code": "decode", "error_detail": "cut short"}
    if kind < 4:
        return {"status": "ok"}
    corners_px = {"x1_px": 1.0, "y1_px": 2.0, "x2_px": float(kind), "y2_px": 9.0}
    found = {"rank": 0, "label": "deer", "class_id": 0, "score": kind / 10, **corners_px}
    return {"status": "ok", "n_detections": 1, "max_score": kind / 10, "detections": [found]}


def rows_seen(digests: list[str], key: str, run_id: str) -> pa.Table:
    rows = [result_rows([one], key=key, run_id=run_id, **seen(one)) for one in digests]
    return pa.concat_tables(rows or [result_rows([])])


class Stage:
    """In place of `HOST.rows`; and the clock of the committer, which it waits for."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._turn = threading.Semaphore(1)
        self._chunks = 0

    def monotonic(self) -> float:
        return float(self._chunks)

    def rows(self, spec: RunSpec, plan: Plan) -> Iterator[pa.Table]:
        if self._task.meet is not None:
            self._task.meet.wait(TURN_S)
        for window in plan.windows(5 * INTERVAL_IMAGES):
            for start in range(0, window.num_rows, CHUNK_IMAGES):
                assert self._turn.acquire(timeout=TURN_S), "the chunk before was never taken"
                yield self._infer(spec, plan, window.slice(start, CHUNK_IMAGES))

    def _infer(self, spec: RunSpec, plan: Plan, chunk: pa.Table) -> pa.Table:
        digests: list[str] = chunk["media_sha256"].to_pylist()
        with open(self._task.inferred, "a") as file:
            file.write("".join(f"{digest}\n" for digest in digests))
        rows = rows_seen(digests, plan.model.info.inference_key, spec.run_id)
        return (
            rows.append_column("replaces", chunk["replaces"].combine_chunks())
            .append_column("waited_ms", pa.array([1.0] * len(rows), pa.float32()))
            .append_column("node", pa.array(["n"] * len(rows)))
        )

    def committer(self, *of_run: Any) -> Committer:
        stage = self

        class InTurn(Committer):
            def add(self, rows: pa.Table) -> None:
                stage._chunks += 1
                super().add(rows)
                stage._turn.release()

        return InTurn(*of_run)


def drive(task: Task) -> None:
    """As `python -m batch.reprocess` ends: 0, the code of an error, 143 after SIGTERM."""
    os.environ.update(task.environment)
    said = os.open(task.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage: Any = Stage(task)
    HOST.rows = stage.rows
    batch.runs.run.Committer = stage.committer
    batch.runs.post_run.publish_if_first = lambda *_: {}  # half of a run's work, and it changes no row
    batch.pipeline.commit.time = stage
    if task.fault:
        archive.delta.tables._commit = Faulty(task.fault, archive.delta.tables._commit, task.orders)
    try:
        batch.runs.run.execute(task.spec, Tables(task.tables), ModelStore(str(MODELS)), HOST)
    except ResightError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(exit_code(error))
