"""One infer request through the engine: encoded images to padded detections, or a tensor to raw outputs.

image  BYTES (n,) or (n, 1)  -> num_detections (n, 1), boxes (n, m, 4) xyxy px of the image as displayed,
                                scores (n, m), class_ids (n, m); m is the most of any image, filled up
                                with zeros and class -1
images FP32 (n, 3, h, w)     -> the network's outputs by name
One version answers all of a request; each image holds a slot of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.config import Preprocess
from model_store.detections import Detections
from model_store.errors import BadRequest, ImageError
from model_store.shown import least_scores, shown
from serve.answers import Answer
from serve.engine import Engine, sample_of
from serve.residents import Resident
from serve.v2.bodies import LOOKED_THROUGH, off_loop
from serve.v2.request import Asked
from serve.v2.response import Outcome
from serve.v2.statistics import Spent, Statistics
from serve.v2.tensors import IMAGE, TENSOR, byte_strings, floats

DETECTION_OUTPUTS = ("num_detections", "boxes", "scores", "class_ids")
FILL_CLASS = -1


class Wanted(NamedTuple):
    """Which model, by when (on time.perf_counter's clock), and what the log calls the request."""

    ref: str
    deadline_s: float | None
    request_id: str


async def infer(
    engine: Engine,
    statistics: Statistics,
    asked: Asked,
    wanted: Wanted,
    slots: contextlib.ExitStack,
) -> Outcome:
    """Call it with one slot taken, the first of its images'; takes the others.

    Raises BadRequest, ModelError, Overloaded, DeadlinePassed.
    """
    rows = _rows(asked, engine.args.limits.online_queue)
    for _ in range(rows - 1):
        slots.enter_context(engine.slot())
    began = time.perf_counter_ns()
    if asked.input.name == IMAGE:
        asked.outputs(list(DETECTION_OUTPUTS))
        images = await off_loop(asked.size_bytes, byte_strings, asked.input, asked.data)
        sample = sample_of(images[0])
        work = partial(_detect, engine, asked, images, wanted)
    else:
        work_bytes = asked.size_bytes * LOOKED_THROUGH
        tensor = await off_loop(work_bytes, floats, asked.input, asked.data)
        sample = sample_of(tensor.reshape(-1)[-1024:].tobytes())
        work = partial(_run, engine, asked, tensor, wanted)
    resident = await engine.residents.get(wanted.ref, sample)
    detector = resident.detector
    try:
        outputs, spent = await work(resident, began)
    except Exception:
        statistics.failed(detector.info.id, time.perf_counter_ns() - began)
        raise
    statistics.succeeded(detector.info.id, rows, spent)
    return Outcome(detector.info, outputs)


async def _detect(
    engine: Engine,
    asked: Asked,
    images: Sequence[bytes],
    wanted: Wanted,
    resident: Resident,
    began_ns: int,
) -> tuple[dict[str, NDArray[Any]], Spent]:
    answers = await _answers(engine, images, resident, wanted)
    least = least_scores(resident.detector.config, asked.header.parameters.min_score)
    outputs = padded([shown(answer.detections, least) for answer in answers])
    times = [answer.timings for answer in answers]
    return outputs, Spent(
        time.perf_counter_ns() - began_ns,
        _ns(max(t.queue_ms for t in times)),
        _ns(max(t.preprocess_ms for t in times)),
        _ns(max(t.inference_ms for t in times)),
        _ns(max(t.postprocess_ms for t in times)),
    )


async def _answers(
    engine: Engine, images: Sequence[bytes], resident: Resident, wanted: Wanted
) -> list[Answer]:
    """All at once. Raises BadRequest that names the first image at fault."""
    done = await asyncio.gather(
        *(engine.detect(i, resident, wanted.deadline_s, wanted.request_id) for i in images),
        return_exceptions=True,
    )
    answers: list[Answer] = []
    for place, one in enumerate(done):
        if isinstance(one, ImageError):
            raise BadRequest(f"input '{IMAGE}', element {place}: {one}") from one
        if isinstance(one, BaseException):
            raise one
        answers.append(one)
    return answers


async def _run(
    engine: Engine,
    asked: Asked,
    tensor: NDArray[np.float32],
    wanted: Wanted,
    resident: Resident,
    began_ns: int,
) -> tuple[dict[str, NDArray[Any]], Spent]:
    _require_fits(tensor.shape, resident.detector.config.preprocess)
    started = time.perf_counter_ns()
    answer = await engine.infer_tensor(tensor, resident, wanted.deadline_s, wanted.request_id)
    ended = time.perf_counter_ns()
    asked.outputs(list(answer.outputs))
    queue = _ns(answer.queue_ms)
    parts = {"queue": queue, "compute_input": started - began_ns}
    parts["compute_infer"] = max(0, ended - started - queue)
    return dict(answer.outputs), Spent(ended - began_ns, **parts)


def _rows(asked: Asked, most: int) -> int:
    """How many images or tensors there are, from the shape alone. Raises BadRequest."""
    name, shape = asked.input.name, asked.input.shape
    if name not in (IMAGE, TENSOR):
        raise BadRequest(
            f"there is no input '{name}'; send '{IMAGE}' (BYTES, encoded images) or '{TENSOR}' (FP32, "
            "the network's own input)"
        )
    if name == IMAGE and not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise BadRequest(f"input '{IMAGE}' has the shape [n] or [n, 1]; {shape} was sent")
    if name == TENSOR and len(shape) != 4:
        raise BadRequest(f"input '{TENSOR}' has the shape [n, 3, height, width]; {shape} was sent")
    if not 1 <= shape[0] <= most:
        raise BadRequest(
            f"{shape[0]} images in one request: 1 to {most} are answered at a time (limits.online_queue)"
        )
    return shape[0]


def _require_fits(shape: Sequence[int], spec: Preprocess) -> None:
    """Raises BadRequest unless it is what the model's own preprocessing would make."""
    _, channels, down, across = shape
    wide, high = spec.input_px
    if spec.resize == "rect":
        step = spec.stride_px
        fits = 0 < down <= high and 0 < across <= wide and not (down % step or across % step)
        wanted = f"[n, 3, height up to {high}, width up to {wide}], multiples of {step}"
    else:
        fits = (down, across) == (high, wide)
        wanted = f"[n, 3, {high}, {wide}]"
    if not fits or channels != 3:
        raise BadRequest(f"input '{TENSOR}' has the shape {wanted}; {list(shape)} was sent")


def padded(found: Sequence[Detections]) -> dict[str, NDArray[Any]]:
    """Detections of n images as n rows of the longest's length."""
    most = max(map(len, found))
    boxes = np.zeros((len(found), most, 4), np.float32)
    scores = np.zeros((len(found), most), np.float32)
    class_ids = np.full((len(found), most), FILL_CLASS, np.int32)
    for row, one in enumerate(found):
        boxes[row, : len(one)] = one.boxes_xyxy
        scores[row, : len(one)] = one.scores
        class_ids[row, : len(one)] = one.class_ids
    counts = np.array([[len(one)] for one in found], np.int32)
    return dict(zip(DETECTION_OUTPUTS, (counts, boxes, scores, class_ids), strict=True))


def _ns(ms: float) -> int:
    return round(ms * 1e6)
