"""A process that runs a stage for `here.py`: chunks from a pipe, rows back.

(number, rows of the plan) -> a thread: Stage.rows, its answers by an engine of this process -> (number, rows or error)
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batch.pipeline.stage import Stage, StageProcess
from model_store.names import parse_version
from serve.inference.os_priority import lower_process_priority
from serve.log_config import configure_logs
from serve.settings import DetectArgs

if TYPE_CHECKING:
    from serve.inference.chunks import Chunk

READY = -1
"""Number of the message that the stage is made and its model is loaded."""


@dataclass(frozen=True, slots=True)
class Started:
    """The stage of a process: class, arguments, `name@version` of its model or an empty text, and threads."""

    stage: type[Stage]
    arguments: tuple[Any, ...]
    model: str
    args: DetectArgs
    threads: int


def as_ipc(table: pa.Table) -> bytes:
    """Return the rows of a table, without the rest of the buffers that it is a slice of."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_ipc(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


class OwnEngine:
    """Implements `batch.pipeline.stage.Answers` with an engine of this process, which holds one version."""

    def __init__(self, args: DetectArgs, model: str) -> None:
        """Verify and load the version. Raises ModelError."""
        from serve.inference.engine import Engine

        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="engine", daemon=True).start()
        self._engine = Engine(args)
        asyncio.run_coroutine_threadsafe(
            self._engine.ensure(parse_version(model)), self._loop
        ).result()

    def answer(self, method: str, chunk: Chunk) -> Any:
        call = getattr(self._engine, method)(chunk)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


def serve_stage(pipe: Connection, started: Started, careful: bool, node: str) -> None:
    """Serve chunks until the driver closes the pipe or ends; then end at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    configure_logs()
    lower_process_priority()
    sending = threading.Lock()

    def send(number: int, outcome: object) -> None:
        with sending:
            pipe.send((number, outcome))

    try:
        import cv2

        cv2.setNumThreads(1)
        replicas = OwnEngine(started.args, started.model) if started.model else None
        stage = started.stage(StageProcess(node, careful, replicas), *started.arguments)
    except Exception as error:
        send(READY, _sendable(error))
        return
    try:
        send(READY, None)
        pool = ThreadPoolExecutor(started.threads, "stage")
        while True:
            number, data = pipe.recv()
            pool.submit(_run, stage, send, number, data)
    finally:  # the driver has ended, or closed the pipe: no chunk in work is needed
        os._exit(0)


def _run(stage: Stage, send: Callable[[int, object], None], number: int, data: bytes) -> None:
    try:
        outcome: object = as_ipc(stage.rows(from_ipc(data)))
    except BaseException as error:
        outcome = _sendable(error)
    send(number, outcome)


def _sendable(error: BaseException) -> BaseException:
    """Return the error with its traceback as a note, or its text if it cannot be pickled."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
