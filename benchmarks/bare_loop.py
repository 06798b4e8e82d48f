"""The baseline: what a competent engineer writes in an evening, on all cores, and nothing more.

files -> read, decode, resize, normalise, ONNX Runtime; one process a core, one thread each. No digests,
no box decoding, no NMS, no rows, no table, no failures handled beyond skipping what is no image.
Written with the libraries alone, so that it shares no code with what it is compared to.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import simplejpeg


@dataclass(frozen=True)
class BareLoop:
    """Stretch to a square, RGB 0..1, one image a call (as fast as larger batches on a CPU).

    With `decodes` False each worker decodes its first file before the clock starts and infers that again
    and again, once for each file: what a server of tensors is compared to. With `infers` False nothing is inferred:
    how fast the cores can feed a device.
    """

    weights: str
    side_px: int
    workers: int
    decodes: bool = True
    infers: bool = True

    def run(self, files: Sequence[Path]) -> float:
        """Images per second over all files, models loaded and warm before the clock starts."""
        return len(files) / max(sum(each) for each in self.seconds(files))

    def seconds(self, files: Sequence[Path]) -> list[list[float]]:
        """What each image took, a list for each worker."""
        context = multiprocessing.get_context("spawn")
        told = context.Queue()
        leader = context.Process(target=_lead, args=(self, [str(file) for file in files], told))
        leader.start()
        seconds: list[list[float]] = told.get()
        leader.join()
        return seconds


def _lead(loop: BareLoop, files: Sequence[str], told: Any) -> None:
    """The workers get a session of their own, as a Ray cluster has: Linux may share the processors out by
    session, and others' work would weigh on one side of the comparison only.
    """
    os.setsid()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(loop.workers + 1)
    each = context.Queue()
    parts = [files[i :: loop.workers] for i in range(loop.workers)]
    processes = [context.Process(target=_work, args=(loop, part, barrier, each)) for part in parts]
    for process in processes:
        process.start()
    barrier.wait()
    told.put([each.get() for _ in processes])
    for process in processes:
        process.join()


def _work(loop: BareLoop, files: Sequence[str], barrier: Barrier, told: Any) -> None:
    cv2.setNumThreads(1)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session, name = None, ""
    if loop.infers:
        session = ort.InferenceSession(loop.weights, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        blank = np.zeros((1, 3, loop.side_px, loop.side_px), np.float32)
        for _ in range(3):
            session.run(None, {name: blank})
    tensor = None if loop.decodes else _tensor(files[0], loop.side_px)
    seconds: list[float] = []
    barrier.wait()
    for file in files:
        started = time.perf_counter()
        image = _tensor(file, loop.side_px) if loop.decodes else tensor
        if image is not None and session is not None:
            session.run(None, {name: image})
        seconds.append(time.perf_counter() - started)
    told.put(seconds)


def _tensor(file: str, side_px: int) -> Any:
    pixels = _decode(Path(file).read_bytes())
    if pixels is None:
        return None
    small = cv2.resize(pixels, (side_px, side_px))
    return np.ascontiguousarray(small.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def _decode(data: bytes) -> Any:
    if data[:2] == b"\xff\xd8":
        try:
            return simplejpeg.decode_jpeg(data, strict=False)
        except ValueError:
            return None
    if not data:
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
