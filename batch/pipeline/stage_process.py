"""A process that runs a stage for `here.py`: chunks from a pipe, rows back.

(number, rows of the plan) -> a thread: Stage.rows, with the model of this process -> (number, rows or error)
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import cv2
import structlog

from archive.delta.arrow_alone import import_arrow_alone
from archive.delta.arrow_stream import as_stream, from_stream
from batch.pipeline.isolation import sendable
from batch.pipeline.stage import Stage, StageProcess
from batch.pipeline.stage_start import StageOrder
from model_store.crop_model import CropModel
from model_store.load import Loaded, load_model, with_measured_batch
from model_store.names import parse_ref
from model_store.store import ModelStore
from serve.inference.batcher import outcomes_of
from serve.inference.chunks import Chunk, pack_answers, pack_crops
from serve.inference.workers import infer, make_items
from serve.log_config import configure_logs

READY = -1
"""Number of the message that the stage is made and its model is loaded."""
EARLY = "batch.pipeline.detect_stage", "onnxruntime"
"""Modules that most stages need: they are imported while the driver plans."""
log = structlog.get_logger("resight.run")


class OwnModel:
    """Implements `batch.pipeline.stage.Answers` with a model of this process, in the thread that calls.

    The thread has just prepared the images, so they are in the caches of its core, and no queue is needed.
    """

    def __init__(self, store_url: str, ref: str) -> None:
        """Verify and load a version; each call of its session uses one thread. Raises BadRequest, ModelError."""
        started, store = time.perf_counter(), ModelStore(store_url)
        self._model = with_own_batch(load_model(store, store.resolve(parse_ref(ref))))
        self.store_url, self.version = store_url, str(self._model.info.id)
        self._facts = {"device": self._model.session.device, "batch": self._model.batch.max}
        self._facts["s"] = round(time.perf_counter() - started, 3)

    def log_load(self) -> None:
        log.info("model_loaded", version=self.version, **self._facts)

    def answer(self, method: str, chunk: Chunk) -> Any:
        key, items = make_items(self._model, chunk.items())
        size = self._model.lane_batch.max
        outcomes = [
            outcome if isinstance(outcome, BaseException) else (outcome, 0.0)
            for start in range(0, len(items), size)
            for outcome in outcomes_of(infer, key, items[start : start + size])
        ]
        if isinstance(self._model, CropModel):
            return pack_crops(self._model, outcomes)  # type: ignore[arg-type]
        return pack_answers(self._model.info, outcomes)  # type: ignore[arg-type]


def with_own_batch(model: Loaded) -> Loaded:
    """Return the model with the batch for calls from several threads: one image on a CPU, else the measured size.

    To measure takes longer there than it may gain: figures in `model_store/load.py`.
    """
    if model.session.device != "cpu":
        return with_measured_batch(model)
    return replace(model, batch=model.batch.model_copy(update={"max": 1}))


def main() -> None:
    """Serve the chunks of the stage that comes first until the driver closes the pipe or ends; then end at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # both are for the driver, which closes the pipe
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe, early = Connection(int(sys.argv[1])), None
    import_arrow_alone()
    for module in EARLY:
        importlib.import_module(module)
    if model := sys.argv[2:]:
        with contextlib.suppress(Exception):  # raised again if a stage needs it
            early = OwnModel(*model)
    with contextlib.suppress(EOFError):  # no stage was needed
        order, log_file = pipe.recv_bytes(), recv_handle(pipe)
        for stream in (1, 2):
            os.dup2(log_file, stream)
        os.close(log_file)
        configure_logs()
        _serve(pipe, order, early)


def _model(order: StageOrder, early: OwnModel | None) -> OwnModel | None:
    """Return the model of a stage, which may be loaded already. Raises ModelError."""
    if not order.model:
        return None
    same = early and (early.store_url, early.version) == (order.store_url, order.model)
    model = early if early and same else OwnModel(order.store_url, order.model)
    model.log_load()
    return model


def _serve(pipe: Connection, pickled: bytes, early: OwnModel | None) -> None:
    sending = threading.Lock()

    def send(number: int, outcome: object) -> None:
        with sending:
            pipe.send((number, outcome))

    try:
        cv2.setNumThreads(1)
        order: StageOrder = pickle.loads(pickled)
        process = StageProcess(order.node, order.careful, _model(order, early))
        stage = order.stage(process, *order.arguments)
    except Exception as error:
        send(READY, sendable(error))
        return
    try:
        send(READY, None)
        pool = ThreadPoolExecutor(order.threads, "stage")
        while True:
            number, data = pipe.recv()
            pool.submit(_run, stage, send, number, data)
    finally:  # the driver has ended, or closed the pipe: no chunk in work is needed
        os._exit(0)


def _run(stage: Stage, send: Callable[[int, object], None], number: int, data: bytes) -> None:
    try:
        outcome: object = as_stream(stage.rows(from_stream(data)))
    except BaseException as error:
        outcome = sendable(error)
    send(number, outcome)


if __name__ == "__main__":
    main()
