"""Run the baseline: a minimal inference loop on all cores, as an engineer would write it in an evening.

files -> read, decode, resize, normalise, ONNX Runtime; one process per core, one thread each. No digests,
no box decoding, no NMS, no rows, no table; the only error handling is to skip files that are not images.
It uses only the libraries, so that it shares no code with Resight.
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
    """Stretch to a square, RGB 0..1, one image per call (as fast as larger batches on a CPU).

    If `decodes` is False, each worker decodes its first file before the clock starts and infers it once for each
    file: the baseline of tensor servers. If `infers` is False, nothing is inferred: the rate at which the cores can
    feed a device.
    """

    weights: str
    side_px: int
    workers: int
    decodes: bool = True
    infers: bool = True

    def run(self, files: Sequence[Path]) -> float:
        """Return images per second over all files; models are loaded and warm before the clock starts."""
        return len(files) / max(sum(each) for each in self.seconds(files))

    def seconds(self, files: Sequence[Path]) -> list[list[float]]:
        """Return the seconds of each image, a list per worker."""
        context = multiprocessing.get_context("spawn")
        told = context.Queue()
        leader = context.Process(target=_lead, args=(self, [str(file) for file in files], told))
        leader.start()
        seconds: list[list[float]] = told.get()
        leader.join()
        return seconds


def _lead(loop: BareLoop, files: Sequence[str], told: Any) -> None:
    """Start a new session for the workers, like that of a Ray cluster: Linux may schedule processors by session, and
    other load would then slow down only one side of the comparison.
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
