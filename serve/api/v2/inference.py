"""Run an infer request: encoded images to padded detections, scores or vectors, or a tensor to raw outputs.

image  BYTES (n,) or (n, 1)  -> num_detections (n, 1), boxes (n, m, 4) xyxy px of the image as displayed,
                                scores (n, m), class_ids (n, m); m is the largest number of detections
                                in an image, padded with zeros and class -1; of a detector
                             -> scores, logits (n, labels); of a classifier
                             -> vector (n, size); of an embedder
images FP32 (n, 3, h, w)     -> the network's outputs by name
One version answers the whole request; each image takes a slot of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_store.classifier import Classifier, softmax
from model_store.config import Preprocess
from model_store.crop_model import CropModel
from model_store.detections import Detections
from model_store.errors import BadRequest, ImageError
from model_store.store import ModelInfo, in_words
from model_store.transform.thresholds import least_scores, shown
from serve.api.v2.bodies import LOOKED_THROUGH, off_loop
from serve.api.v2.codec import ParsedRequest
from serve.api.v2.metadata import Statistics, image_outputs
from serve.api.v2.tensors import IMAGE, TENSOR, byte_strings, floats
from serve.inference.engine import Engine, sample_of
from serve.models.resolver import ResolvedModel

DETECTION_OUTPUTS = ("num_detections", "boxes", "scores", "class_ids")
FILL_CLASS = -1
Outputs = dict[str, NDArray[Any]]
A = TypeVar("A")


async def infer(
    engine: Engine,
    statistics: Statistics,
    request: ParsedRequest,
    ref: str,
    deadline_s: float | None,
    request_id: str,
    slots: contextlib.ExitStack,
) -> tuple[ModelInfo, Outputs]:
    """Run a request; return the version that answered, and its outputs.

    The caller has taken the slot of the first image; this function takes the others. `deadline_s` is on
    time.perf_counter's clock. Raises BadRequest, ModelError, Overloaded, DeadlinePassed.
    """
    with engine.observer.failures(ref, request_id):
        rows = _rows(request, engine.args.limits.online_queue)
    for _ in range(rows - 1):
        slots.enter_context(engine.admission.images.place())
    began_ns = time.perf_counter_ns()
    with engine.observer.failures(ref, request_id):
        if request.input.name == IMAGE:
            images = await off_loop(request.size_bytes, byte_strings, request.input, request.data)
            sample = sample_of(images[0])
            run = partial(_of_images, engine, request, images, deadline_s, request_id)
        else:
            work_bytes = request.size_bytes * LOOKED_THROUGH
            tensor = await off_loop(work_bytes, floats, request.input, request.data)
            # both ends may be padding
            sample = sample_of(tensor.reshape(-1)[:: max(1, tensor.size // 1024)].tobytes())
            run = partial(_run, engine, request, tensor, deadline_s, request_id, began_ns)
        resolved = await engine.resolver.get(ref, sample)
        if request.input.name == IMAGE:
            request.outputs([output.name for output in image_outputs(resolved.model)])
        if request.header.parameters.min_score is not None and isinstance(resolved.model, CropModel):
            raise BadRequest(f"min_score is a parameter of detectors, and {ref} is {in_words(resolved.model.config)}")
    model = resolved.model.info
    try:
        outputs, spent_ns = await run(resolved)
    except Exception:
        statistics.count(model.id, 0, fail=time.perf_counter_ns() - began_ns)
        raise
    statistics.count(model.id, rows, success=time.perf_counter_ns() - began_ns, **spent_ns)
    return model, outputs


async def _of_images(
    engine: Engine,
    request: ParsedRequest,
    images: Sequence[bytes],
    deadline_s: float | None,
    request_id: str,
    resolved: ResolvedModel,
) -> tuple[Outputs, dict[str, int]]:
    """Run the model on all images concurrently. Raises BadRequest that names the first invalid image."""
    model, min_score = resolved.model, request.header.parameters.min_score
    if isinstance(model, CropModel):
        answers = await _each(
            engine.infer_crop(type(model), image, resolved, None, deadline_s, request_id) for image in images
        )
        values = np.stack([answer.values for answer in answers])
        outputs = {"scores": softmax(values), "logits": values} if isinstance(model, Classifier) else {"vector": values}
    else:
        answers = await _each(engine.detect(image, resolved, deadline_s, request_id) for image in images)
        min_scores = least_scores(model.config, min_score)
        outputs = padded([shown(answer.detections, min_scores) for answer in answers])
    times = [answer.timings for answer in answers]
    return outputs, {
        "queue": _ns(max(t.queue_ms for t in times)),
        "compute_input": _ns(max(t.preprocess_ms for t in times)),
        "compute_infer": _ns(max(t.inference_ms for t in times)),
        "compute_output": _ns(max(t.postprocess_ms for t in times)),
    }


async def _each(calls: Iterable[Awaitable[A]]) -> list[A]:
    """Return the answers of concurrent calls for each image. Raises BadRequest that names the first invalid one."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[A] = []
    for place, result in enumerate(results):
        if isinstance(result, ImageError):
            raise BadRequest(f"input '{IMAGE}', element {place}: {result}") from result
        if isinstance(result, BaseException):
            raise result
        answers.append(result)
    return answers


async def _run(
    engine: Engine,
    request: ParsedRequest,
    tensor: NDArray[np.float32],
    deadline_s: float | None,
    request_id: str,
    began_ns: int,
    resolved: ResolvedModel,
) -> tuple[Outputs, dict[str, int]]:
    with engine.observer.failures(resolved, request_id):
        _require_fits(tensor.shape, resolved.model.config.preprocess)
    started_ns = time.perf_counter_ns()
    answer = await engine.infer_tensor(tensor, resolved, deadline_s, request_id)
    queue_ns, spent_ns = _ns(answer.queue_ms), time.perf_counter_ns() - started_ns
    request.outputs(list(answer.outputs))
    return dict(answer.outputs), {
        "queue": queue_ns,
        "compute_input": started_ns - began_ns,
        "compute_infer": max(0, spent_ns - queue_ns),
        "compute_output": 0,
    }


def _rows(request: ParsedRequest, max_rows: int) -> int:
    """Return the number of images or tensors, from the shape alone. Raises BadRequest."""
    name, shape = request.input.name, request.input.shape
    if name not in (IMAGE, TENSOR):
        raise BadRequest(
            f"unknown input '{name}': send '{IMAGE}' (BYTES, encoded images) or '{TENSOR}' (FP32, the "
            "network's own input)"
        )
    if name == IMAGE and not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise BadRequest(f"input '{IMAGE}' must have the shape [n] or [n, 1], not {shape}")
    if name == TENSOR and len(shape) != 4:
        raise BadRequest(f"input '{TENSOR}' must have the shape [n, 3, height, width], not {shape}")
    if not 1 <= shape[0] <= max_rows:
        raise BadRequest(f"{shape[0]} images in one request: send 1 to {max_rows} (limits.online_queue)")
    return shape[0]


def _require_fits(shape: Sequence[int], spec: Preprocess) -> None:
    """Raise BadRequest unless the model's preprocessing could produce the shape."""
    _, channels, down, across = shape
    wide, high = spec.input_px
    if spec.resize == "rect":
        step = spec.stride_px
        fits = 0 < down <= high and 0 < across <= wide and not (down % step or across % step)
        expected = f"[n, 3, height up to {high}, width up to {wide}], multiples of {step}"
    else:
        fits = (down, across) == (high, wide)
        expected = f"[n, 3, {high}, {wide}]"
    if not fits or channels != 3:
        raise BadRequest(f"input '{TENSOR}' must have the shape {expected}, not {list(shape)}")


def padded(images: Sequence[Detections]) -> Outputs:
    """Return the detections of n images as arrays of n rows, padded to the largest count."""
    longest = max(map(len, images))
    boxes = np.zeros((len(images), longest, 4), np.float32)
    scores = np.zeros((len(images), longest), np.float32)
    class_ids = np.full((len(images), longest), FILL_CLASS, np.int32)
    for row, detections in enumerate(images):
        boxes[row, : len(detections)] = detections.boxes_xyxy
        scores[row, : len(detections)] = detections.scores
        class_ids[row, : len(detections)] = detections.class_ids
    counts = np.array([[len(detections)] for detections in images], np.int32)
    return dict(zip(DETECTION_OUTPUTS, (counts, boxes, scores, class_ids), strict=True))


def _ns(ms: float) -> int:
    return round(ms * 1e6)
