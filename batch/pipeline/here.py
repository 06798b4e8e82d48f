"""Run the stage of a pass in processes of this machine, without a cluster, and yield its results as they arrive.

windows of the plan -> chunks -> stage processes, each with the model and some threads -> tables of rows, in any order

The driver only plans and commits, so an image that kills the process that reads it does not end the run: the process
is replaced, and in a detection run its successor finds that image by reading in child processes (`detect_stage.py`).
Threads share one model; more processes help where the interpreter's lock limits one (docs/decisions/0028).
"""

from __future__ import annotations

import contextlib
import itertools
import platform
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait

import pyarrow as pa

from archive.delta.arrow_stream import as_stream, from_stream
from batch.pipeline.stage_start import StageOrder, StartedProcess, start
from batch.planning.plan import Plan
from batch.runs.spec import PassSpec
from model_store.errors import ModelRefused, ProcessKilled
from model_store.machine import usable_cores
from model_store.store import ModelStore, ModelVersion

CHUNK_IMAGES = 16
"""Limit of images per chunk, unless --chunk is given: less than on a cluster, as a message costs less and the last
chunks end together."""
WINDOW_IMAGES = 65_536
CORES_PER_PROCESS = 8
"""Cores for which one process has enough threads."""
TICK_S = 0.5
MAX_RESTARTS, MAX_ATTEMPTS = 20, 3
"""Processes that may die in a run, and further attempts at a chunk that was in work when its process died."""


@dataclass(frozen=True, slots=True)
class OwnProcesses:
    """Implements `batch.pipeline.stage.RunHost` on this machine."""

    store: ModelStore

    @contextlib.contextmanager
    def leased(self, model: ModelVersion, run_id: str) -> Generator[None]:
        """Return at once: each process of the stage loads the version and keeps it."""
        yield

    def threads(self, spec: PassSpec) -> int:
        return _processes(spec) * _threads(spec)

    def rows(self, spec: PassSpec, plan: Plan) -> Iterator[pa.Table | None]:
        stage, arguments, size = plan.work.stage(spec)
        size = size if getattr(spec, "chunk", 0) else min(size, CHUNK_IMAGES)
        count = min(_processes(spec), -(-plan.todo // size))
        model = str(plan.model.id) if plan.work.needs_replica else ""
        order = StageOrder(stage, arguments, model, self.store.url, _threads(spec), platform.node())
        chunks = (
            window.slice(start, size)
            for window in plan.windows(WINDOW_IMAGES)
            for start in range(0, window.num_rows, size)
        )
        with contextlib.closing(_Processes(order, count)) as processes:
            yield from processes.rows(chunks)


def _processes(spec: PassSpec) -> int:
    return spec.actors or -(-usable_cores() // CORES_PER_PROCESS)


def _threads(spec: PassSpec) -> int:
    return spec.threads or -(-usable_cores() // _processes(spec))


@dataclass(slots=True)
class _Chunk:
    data: bytes
    attempts: int = 0


@dataclass(slots=True)
class _Process:
    """A stage process, and the chunks that it has not returned yet, by number."""

    started: StartedProcess
    careful: bool
    is_ready: bool = False
    chunks: dict[int, _Chunk] = field(default_factory=dict)


class _Processes:
    """Some stage processes."""

    def __init__(self, order: StageOrder, count: int) -> None:
        self._order, self._deaths = order, 0
        self._waiting: deque[_Chunk] = deque()
        self._running = [self._start(careful=False) for _ in range(count)]

    def close(self) -> None:
        """End the processes."""
        for process in self._running:
            process.started.end()

    def rows(self, chunks: Iterable[pa.Table]) -> Iterator[pa.Table | None]:
        """Yield the rows of each chunk, and None after a time without any.

        A process that is not ready gets one chunk: it does not read yet, and the others may be faster.
        Raises the errors of the stage, ModelRefused, ProcessKilled.
        """
        more, numbers = iter(chunks), itertools.count()
        while True:
            for process in self._running:
                while len(process.chunks) < (2 * self._order.threads if process.is_ready else 1):
                    chunk = self._next(more, process.careful)
                    if chunk is None:
                        break
                    process.chunks[number := next(numbers)] = chunk
                    with contextlib.suppress(OSError):  # it has died: `recv` finds out
                        process.started.pipe.send((number, chunk.data))
            if not any(process.chunks for process in self._running):
                return
            ready = wait([process.started.pipe for process in self._running], TICK_S)
            if not ready:
                yield None
            for position, process in enumerate(self._running):
                if process.started.pipe in ready:
                    yield from self._received(position, process)

    def _next(self, more: Iterator[pa.Table], careful: bool) -> _Chunk | None:
        """Return the next chunk. One that was in work when its process died is attempted again by a careful one."""
        if self._waiting and careful:
            return self._waiting.popleft()
        table = next(more, None)
        return None if table is None else _Chunk(as_stream(table))

    def _received(self, position: int, process: _Process) -> Iterator[pa.Table]:
        try:
            number, outcome = process.started.pipe.recv()
        except (EOFError, OSError):
            self._running[position] = self._replaced(process)
            return
        if isinstance(outcome, BaseException):
            raise outcome
        process.is_ready = True
        if outcome is not None:
            del process.chunks[number]
            yield from_stream(outcome)

    def _replaced(self, process: _Process) -> _Process:
        """Return a careful process in place of one that has died; its chunks are attempted again."""
        how = process.started.end()
        if not (process.is_ready or process.careful or how == "SIGKILL"):
            raise ModelRefused(
                f"loading {self._order.model or 'the stage'} killed its process ({how}); see the log of the run"
            )
        self._deaths += 1
        for chunk in process.chunks.values():
            chunk.attempts += 1
            self._waiting.append(chunk)
        if self._deaths > MAX_RESTARTS or any(c.attempts > MAX_ATTEMPTS for c in self._waiting):
            raise ProcessKilled(
                f"a process of the run was killed ({how}) for the {self._deaths}th time; finished results are kept. "
                "If memory ran out (SIGKILL), lower --threads or --megapixels; then run again"
            )
        return self._start(careful=True)

    def _start(self, careful: bool) -> _Process:
        started = start()
        with contextlib.suppress(OSError):  # it has died: `recv` finds out
            started.order(replace(self._order, careful=careful))
        return _Process(started, careful)
