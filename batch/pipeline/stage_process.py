"""A process that runs a stage for `here.py`: chunks from a pipe, rows back.

(number, rows of the plan) -> a thread: Stage.rows, with the model of this process -> (number, rows or error)
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import cv2

from archive.delta.arrow_stream import as_stream, from_stream
from batch.pipeline.stage import Stage, StageProcess
from model_store.names import parse_version
from model_store.store import ModelStore
from serve.inference.batcher import outcomes_of
from serve.inference.chunks import Chunk, pack_answers, pack_logits
from serve.inference.workers import infer, make_items
from serve.log_config import configure_logs
from serve.models.loader import Loader

READY = -1
"""Number of the message that the stage is made and its model is loaded."""


@dataclass(frozen=True, slots=True)
class Started:
    """The stage of a process: class, arguments, `name@version` of its model or an empty text, and threads."""

    stage: type[Stage]
    arguments: tuple[Any, ...]
    model: str
    store_url: str
    threads: int


class OwnModel:
    """Implements `batch.pipeline.stage.Answers` with a model of this process, in the thread that calls.

    The thread has just prepared the images, so they are in the caches of its core, and no queue is needed.
    """

    def __init__(self, store_url: str, version: str) -> None:
        """Verify and load the version; each call of its session uses one thread. Raises ModelError."""
        self._model = Loader(ModelStore(store_url), threads=1).load(parse_version(version))

    def answer(self, method: str, chunk: Chunk) -> Any:
        key, items = make_items(self._model, chunk.items())
        size = self._model.lane_batch.max
        outcomes = [
            outcome if isinstance(outcome, BaseException) else (outcome, 0.0)
            for start in range(0, len(items), size)
            for outcome in outcomes_of(infer, key, items[start : start + size])
        ]
        pack: Any = pack_answers if method == "detect_chunk" else pack_logits
        return pack(self._model.info, outcomes)


def serve_stage(pipe: Connection, started: Started, careful: bool, node: str) -> None:
    """Serve chunks until the driver closes the pipe or ends; then end at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # both are for the driver, which closes the pipe
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.dup2(1, 2)  # the log of the job, also if its driver has a terminal
    configure_logs()
    sending = threading.Lock()

    def send(number: int, outcome: object) -> None:
        with sending:
            pipe.send((number, outcome))

    try:
        cv2.setNumThreads(1)
        replicas = OwnModel(started.store_url, started.model) if started.model else None
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
        outcome: object = as_stream(stage.rows(from_stream(data)))
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
