"""The baseline: what a competent engineer writes in an evening, on all cores, and nothing more.

files -> read, decode, resize, normalise, ONNX Runtime; one process a core, one thread each. No digests,
no box decoding, no NMS, no rows, no table, no failures handled beyond skipping what is no image.
Written with the libraries alone, so that it shares no code with what it is compared to.
"""

from __future__ import annotations

import multiprocessing
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
    """Stretch to a square, RGB 0..1, one image a call (as fast as larger batches on a CPU)."""

    weights: str
    side_px: int
    workers: int

    def run(self, files: Sequence[Path]) -> float:
        """Images per second over all files, models loaded and warm before the clock starts."""
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(self.workers + 1)
        seconds = context.Queue()
        parts = [[str(f) for f in files[i :: self.workers]] for i in range(self.workers)]
        processes = [
            context.Process(target=_work, args=(self, part, barrier, seconds)) for part in parts
        ]
        for process in processes:
            process.start()
        barrier.wait()
        slowest = max(seconds.get() for _ in processes)
        for process in processes:
            process.join()
        return len(files) / slowest


def _work(loop: BareLoop, files: Sequence[str], barrier: Barrier, seconds: Any) -> None:
    cv2.setNumThreads(1)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(loop.weights, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    blank = np.zeros((1, 3, loop.side_px, loop.side_px), np.float32)
    for _ in range(3):
        session.run(None, {name: blank})
    barrier.wait()
    started = time.perf_counter()
    for file in files:
        pixels = _decode(Path(file).read_bytes())
        if pixels is None:
            continue
        small = cv2.resize(pixels, (loop.side_px, loop.side_px))
        tensor = np.ascontiguousarray(small.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        session.run(None, {name: tensor})
    seconds.put(time.perf_counter() - started)


def _decode(data: bytes) -> Any:
    if data[:2] == b"\xff\xd8":
        try:
            return simplejpeg.decode_jpeg(data, strict=False)
        except ValueError:
            return None
    if not data:
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
