"""Routes of Antenna's processing-service API, below /antenna; also POST /process.

Antenna joins its endpoint URL with `info` and `readyz`, but with `/process` from the root of the host.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from model_store.classifier import Classifier, softmax
from model_store.errors import SOON_S, BadRequest, DeadlinePassed, ResightError, StorageError, TooSlow
from model_store.images.crops import Box
from model_store.store import ModelInfo
from serve.antenna.fetch import ImageFetcher
from serve.antenna.pipelines import Pipeline, Pipelines, algorithm, reference
from serve.api.answers import to_response
from serve.api.base import any_query
from serve.api.bodies import MIB, PROBLEMS, SmallBodyRoute
from serve.api.headers import REQUEST_ID, request_id_of
from serve.api.problems import problem, retry_after, with_id
from serve.api.schemas import WireDetection
from serve.inference.admission import Room
from serve.inference.engine import Engine
from serve.inference.workers import SharedImage
from serve.models.pool_proxy import forwarded
from serve.models.pools import Pools, serving_everywhere

MAX_IMAGES, MAX_DETECTIONS = 64, 2000
"""Maximum numbers in a request. Antenna sends 1 image, unless a project sets more."""
MAX_REQUESTS, MAX_BOXES = 16, 4
"""Requests that are answered concurrently, and boxes of one image."""
MAX_VALUES = 2_000_000
"""Maximum number of scores and logits in an answer, which is about 40 MB of JSON."""
A = TypeVar("A")
Result = dict[str, Any]
log = structlog.get_logger("resight.serve")


class Received(BaseModel):
    """Base of what Antenna sends. Unknown fields are ignored, as Antenna adds fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class SourceImage(Received):
    id: str = Field(max_length=200)
    url: str = Field(max_length=8192)


class AlgorithmReference(Received):
    name: str = Field(max_length=1000)
    key: str = Field(max_length=1000)


class BoundingBox(Received):
    """Sides in px of the upright image."""

    x1: float
    y1: float
    x2: float
    y2: float


class KnownDetection(Received):
    """A detection that Antenna has already; one without a box states that an image is empty."""

    source_image: SourceImage
    bbox: BoundingBox | None = None
    algorithm: AlgorithmReference


class PipelineRequest(Received):
    """Body of POST /process."""

    pipeline: str = Field(max_length=400)
    source_images: list[SourceImage] = Field(max_length=MAX_IMAGES)
    detections: list[KnownDetection] | None = Field(
        default=None, max_length=MAX_DETECTIONS, description="boxes to classify again in place of the detector's"
    )
    config: dict[str, Any] | None = Field(default=None, description="ignored")


class LargeBodyRoute(SmallBodyRoute):
    max_bytes = 4 * MIB


def router(engine: Engine, fetcher: ImageFetcher, pools: Pools | None = None) -> APIRouter:
    routes = APIRouter(tags=["antenna"])
    large = APIRouter(tags=["antenna"], route_class=LargeBodyRoute)
    room = Room(MAX_REQUESTS, "requests of Antenna are being answered")
    placement, pipelines = engine.placement, Pipelines(engine)
    turns = asyncio.Semaphore(max_images(engine))

    @routes.get("/antenna/livez")
    @any_query
    async def livez() -> dict[str, bool]:
        """Report that the process answers."""
        return {"status": True}

    @routes.get("/antenna/readyz", responses={503: PROBLEMS[503]})
    @any_query
    async def readyz() -> dict[str, list[str]]:
        """Return the slugs of the pipelines with all models loaded; 503 if no model is loaded."""
        serving = await serving_everywhere(engine.serving(), pools)
        serving.require_ready(engine.store.url)
        served = await pipelines.served()
        return {"status": [p.slug for p in served if all(model.id in serving.versions for model in p.models)]}

    @routes.get("/antenna/info")
    async def info() -> Result:
        """Return the pipelines of the served models, with their labels."""
        served = await pipelines.served()
        models = {model.id: model for pipeline in served for model in pipeline.models}
        return {
            "name": "Resight",
            "description": "Detectors and classifiers of a Resight model store",
            "pipelines": [pipeline.described() for pipeline in served],
            "algorithms": [algorithm(model) for model in models.values()],
        }

    @large.post("/antenna/process", responses={k: PROBLEMS[k] for k in (404, 408, 413, 429, 503)})
    @large.post("/process", include_in_schema=False)
    async def process(request: Request, wanted: PipelineRequest) -> Response:
        """Fetch images, detect, and classify each box.

        An image that fails is an entry of `errors`; an error that ends by itself is 503 for the whole request.
        """
        request_id = request_id_of(request)
        with room.place():
            try:
                pipeline = await pipelines.find(wanted.pipeline)
                name = pipeline.detector.id.name
                if pools is not None and not placement.serves(name):
                    passed = forwarded(request, await request.body(), None)
                    answer = await pools.answer(placement.pool_of(name), passed)
                    return answer.response()
                run = PipelineRun(engine, fetcher, pipeline, request_id, turns)
                results = await run.results(wanted)
            except ResightError as error:
                if not ends_by_itself(error):
                    raise
                headers = retry_after(error.retry_after_s or SOON_S)
                return with_id(problem(503, type(error).__name__, str(error), headers), request)
            text = await asyncio.to_thread(to_json, results)  # may hold the scores of many boxes
        return Response(text, headers={REQUEST_ID: request_id}, media_type="application/json")

    routes.include_router(large)
    return routes


def max_images(engine: Engine) -> int:
    """Return how many images of Antenna one replica fetches and processes concurrently, for all requests."""
    return max(1, engine.args.limits.online_queue // 8)


def ends_by_itself(error: ResightError) -> bool:
    """Return whether the same image may succeed later. Antenna would keep an `ImageFailure` of it for ever."""
    late = isinstance(error, StorageError | TooSlow | DeadlinePassed)
    return late or error.retry_after_s is not None


async def together(calls: Iterable[Coroutine[Any, Any, A]]) -> list[A]:
    """Return the results of concurrent calls. At the first error, cancel the other calls and raise it."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


class PipelineRun:
    """One request: a pipeline over its images.

    An image takes a turn of the replica, then places among the images of all senders. All turns together take at most
    half of these places, and none while an image is fetched, so that cameras keep theirs.
    """

    def __init__(
        self, engine: Engine, fetcher: ImageFetcher, pipeline: Pipeline, request_id: str, turns: asyncio.Semaphore
    ) -> None:
        self._engine, self._fetcher, self._request_id = engine, fetcher, request_id
        self._detector = pipeline.detector.info
        self._classifier = pipeline.classifier.info if pipeline.classifier else None
        share = engine.args.limits.online_queue // 2 // max_images(engine)
        self._boxes = max(1, min(MAX_BOXES, share)) if self._classifier else 1
        self._turns, self._values_left = turns, MAX_VALUES

    async def results(self, wanted: PipelineRequest) -> Result:
        """Return the results of all images.

        Raises BadRequest for one id with several URLs or too large an answer, and errors that end by themselves.
        """
        started = time.perf_counter()
        images = {image.id: image for image in wanted.source_images}
        for image in wanted.source_images:
            if images[image.id] != image:
                raise BadRequest(f"image {image.id[:100]} is listed twice, with different URLs")
        known: dict[str, list[KnownDetection]] = defaultdict(list)
        for detection in wanted.detections or ():
            known[detection.source_image.id].append(detection)
        outcomes = await together(self._outcome(image, known[image.id]) for image in images.values())
        by_id = dict(zip(images, outcomes, strict=True))
        done = {name: found for name, found in by_id.items() if not isinstance(found, str)}
        failed = [{"image_id": name, "error": by_id[name]} for name in by_id if name not in done]
        return {
            "pipeline": wanted.pipeline,
            "total_time": round(time.perf_counter() - started, 3),
            # without those that failed: Antenna records images without a detection as empty
            "source_images": [images[image_id].model_dump() for image_id in done],
            "detections": [detection for found in done.values() for detection in found],
            "errors": failed or None,
        }

    async def _outcome(self, image: SourceImage, known: Sequence[KnownDetection]) -> list[Result] | str:
        """Return the detections of an image, or why it failed. Raises errors that fail the request."""
        try:
            async with self._turns:
                data = await self._fetcher.fetch(image.url)
                with self._engine.admission.images.place(self._boxes):
                    return await self._detections(image.id, data, known)
        except ResightError as error:
            if self._values_left < 0 or ends_by_itself(error):
                raise
            return str(error)
        except Exception as error:
            log.exception("antenna_image_failed", image=image.id, request_id=self._request_id)
            return f"{type(error).__name__}; see the replica's log"

    async def _detections(self, image_id: str, data: bytes, known: Sequence[KnownDetection]) -> list[Result]:
        """Return the detections of an image: with a classifier, of the boxes that Antenna has, if any."""
        boxes = [one for one in known if one.bbox] if self._classifier else []
        if boxes:
            self._count_values(len(boxes))
            found = [_detection(image_id, k.bbox, k.algorithm.model_dump()) for k in boxes if k.bbox]
        else:
            ref = str(self._detector.id)
            answer = to_response(await self._engine.detect(data, ref, None, self._request_id), None)
            self._count_values(len(answer.detections))
            seconds = answer.timings_ms.inference / 1e3
            found = [self._detected(image_id, one, seconds) for one in answer.detections]
        if self._classifier and found:
            shared = SharedImage()
            await self._classify(found[0], data, self._classifier, shared)  # decodes the image
            for start in range(1, len(found), self._boxes):
                part = found[start : start + self._boxes]
                await together(self._classify(one, data, self._classifier, shared) for one in part)
        return found

    def _count_values(self, boxes: int) -> None:
        """Count the scores and logits of some boxes. Raises BadRequest above MAX_VALUES."""
        classes = len(self._classifier.labels) if self._classifier else 0
        self._values_left -= boxes * (len(self._detector.labels) + 2 * classes)
        if self._values_left < 0:
            raise BadRequest(
                f"the answer would have more than {MAX_VALUES} scores and logits: send fewer images or boxes"
            )

    def _detected(self, image_id: str, found: WireDetection, seconds: float) -> Result:
        """Return a detection with its label as a classification: Antenna has no other place for label and score."""
        scores = [0.0] * len(self._detector.labels)
        scores[found.class_id] = found.score
        is_last = self._classifier is None
        label = _classification(self._detector, found.label, scores, None, seconds, is_last)
        x1, y1, x2, y2 = found.box_xyxy_px
        box = BoundingBox(x1=x1, y1=y1, x2=x2, y2=y2)
        return _detection(image_id, box, reference(self._detector), seconds, label)

    async def _classify(self, found: Result, data: bytes, classifier: ModelInfo, shared: SharedImage) -> None:
        """Add the class of a box. One that lies outside the image, such as in a detector's padding, gets none."""
        side = found["bbox"]
        box: Box = (side["x1"], side["y1"], side["x2"], side["y2"])
        try:
            answer = await self._engine.infer_crop(
                Classifier, data, str(classifier.id), box, None, self._request_id, shared
            )
        except BadRequest:
            return
        label, scores = classifier.labels[int(answer.values.argmax())], softmax(answer.values[None])[0].tolist()
        seconds = answer.timings.inference_ms / 1e3
        found["classifications"].append(
            _classification(classifier, label, scores, answer.values.tolist(), seconds, True)
        )


def _detection(
    image_id: str, box: BoundingBox, algorithm: Result, seconds: float | None = None, *classifications: Result
) -> Result:
    return {
        "source_image_id": image_id,
        "bbox": box.model_dump(),
        "inference_time": seconds,
        "algorithm": algorithm,
        "timestamp": _now(),
        "crop_image_url": None,
        "classifications": list(classifications),
    }


def _classification(
    model: ModelInfo, label: str, scores: list[float], logits: list[float] | None, seconds: float, is_terminal: bool
) -> Result:
    """Return a classification; scores and logits have the order of the model's labels."""
    return {
        "classification": label,
        "scores": scores,
        "logits": logits,
        "inference_time": seconds,
        "algorithm": reference(model),
        "terminal": is_terminal,
        "timestamp": _now(),
    }


def _now() -> datetime:
    """Return the time in UTC, without a zone, as Antenna stores none."""
    return datetime.now(UTC).replace(tzinfo=None)
