"""Routes of Antenna's processing-service API, below /antenna; also POST /process.

Antenna joins its endpoint URL with `info` and `readyz`, but with `/process` from the root of the host.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response

from model_store.classifier import softmax
from model_store.errors import BadRequest, Overloaded, ResightError
from model_store.images.crops import Box
from model_store.store import ModelInfo
from serve.antenna.fetch import ImageFetcher
from serve.antenna.pipelines import (
    Pipeline,
    Pipelines,
    algorithm,
    loaded_slugs,
    reference,
)
from serve.antenna.schemas import (
    BoundingBox,
    Classification,
    Detection,
    ImageFailure,
    KnownDetection,
    Live,
    PipelineRequest,
    PipelineResults,
    PipelinesOnline,
    ServiceInfo,
    SourceImage,
    now,
)
from serve.api.answers import to_response
from serve.api.base import any_query
from serve.api.bodies import MIB, PROBLEMS, SmallBodyRoute
from serve.api.headers import REQUEST_ID, request_id_of
from serve.api.schemas import WireDetection
from serve.inference.admission import Room
from serve.inference.engine import Engine
from serve.inference.workers import SharedImage
from serve.models.pool_proxy import Pools, forwarded
from serve.models.readiness import serving_everywhere

MAX_REQUESTS, CONCURRENT_IMAGES, CONCURRENT_BOXES = 16, 4, 8
DECODED_IMAGES = 2
"""Images of a replica that are kept in memory as pixels while their boxes are classified."""
WAIT_S, STEP_S = 60.0, 0.05
"""Maximum wait of an image for a place among the images of the replica, and the time between two attempts."""
A = TypeVar("A")
log = structlog.get_logger("resight.serve")


class LargeBodyRoute(SmallBodyRoute):
    max_bytes = 4 * MIB


def router(engine: Engine, fetcher: ImageFetcher, pools: Pools | None = None) -> APIRouter:
    routes = APIRouter(tags=["antenna"])
    large = APIRouter(tags=["antenna"], route_class=LargeBodyRoute)
    room = Room(MAX_REQUESTS, "requests of Antenna are being answered")
    placement, pipelines = engine.placement, Pipelines(engine)
    decoding = asyncio.Semaphore(DECODED_IMAGES)

    @routes.get("/antenna/livez")
    @any_query
    async def livez() -> Live:
        """Report that the process answers."""
        return Live()

    @routes.get("/antenna/readyz", responses={503: PROBLEMS[503]})
    @any_query
    async def readyz() -> PipelinesOnline:
        """Return the slugs of the pipelines with all models loaded; 503 if no model is loaded."""
        serving = await serving_everywhere(engine.serving(), pools)
        serving.require_ready(engine.store.url)
        return PipelinesOnline(status=loaded_slugs(await pipelines.served(), serving.versions))

    @routes.get("/antenna/info")
    async def info() -> ServiceInfo:
        """Return the pipelines of the served models, with their labels."""
        served = await pipelines.served()
        models = {model.id: model for pipeline in served for model in pipeline.models}
        return ServiceInfo(
            pipelines=[pipeline.described() for pipeline in served],
            algorithms=[algorithm(model) for model in models.values()],
        )

    @large.post(
        "/antenna/process",
        response_model=PipelineResults,
        responses={k: PROBLEMS[k] for k in (404, 408, 413, 429, 503)},
    )
    @large.post("/process", include_in_schema=False)
    async def process(request: Request, wanted: PipelineRequest) -> Response:
        """Fetch images, detect, and classify each box. An image that fails is an entry of `errors`."""
        with room.place():
            pipeline = await pipelines.find(wanted.pipeline)
            name = pipeline.detector.id.name
            if pools is not None and not placement.serves(name):
                passed = forwarded(request, await request.body(), None)
                answer = await pools.answer(placement.pool_of(name), passed)
                return Response(answer.body, answer.status, media_type="application/json")
            run = PipelineRun(engine, fetcher, pipeline, request_id_of(request), decoding)
            results = await run.results(wanted)
        text = await asyncio.to_thread(results.model_dump_json)  # may hold the scores of many boxes
        headers = {REQUEST_ID: run.request_id}
        return Response(text, headers=headers, media_type="application/json")

    routes.include_router(large)
    return routes


async def when_free(call: Callable[[], Awaitable[A]]) -> A:
    """Return `call()`, repeated for up to WAIT_S while the lane is full: Antenna does not repeat a request."""
    ends_s = time.monotonic() + WAIT_S
    while True:
        try:
            return await call()
        except Overloaded:
            if time.monotonic() > ends_s:
                raise
        await asyncio.sleep(STEP_S)


class PipelineRun:
    """One request: a pipeline over its images."""

    def __init__(
        self,
        engine: Engine,
        fetcher: ImageFetcher,
        pipeline: Pipeline,
        request_id: str,
        decoding: asyncio.Semaphore,
    ) -> None:
        self._engine, self._fetcher, self.request_id = engine, fetcher, request_id
        self._detector = pipeline.detector.info
        self._classifier = pipeline.classifier.info if pipeline.classifier else None
        self._turns, self._decoding = asyncio.Semaphore(CONCURRENT_IMAGES), decoding

    async def results(self, wanted: PipelineRequest) -> PipelineResults:
        """Return the results of all images. Raises BadRequest for one id with several URLs."""
        started = time.perf_counter()
        images = {image.id: image for image in wanted.source_images}
        for image in wanted.source_images:
            if images[image.id] != image:
                raise BadRequest(f"image {image.id[:100]} is listed twice, with different URLs")
        known: dict[str, list[KnownDetection]] = defaultdict(list)
        for detection in wanted.detections or ():
            known[detection.source_image.id].append(detection)
        outcomes = await asyncio.gather(
            *(self._outcome(image, known[image.id]) for image in images.values())
        )
        done = [o for o in outcomes if not isinstance(o, ImageFailure)]
        return PipelineResults(
            pipeline=wanted.pipeline,
            total_time=round(time.perf_counter() - started, 3),
            source_images=[image for image, _ in done],
            detections=[detection for _, found in done for detection in found],
            errors=[o for o in outcomes if isinstance(o, ImageFailure)] or None,
        )

    async def _outcome(
        self, image: SourceImage, known: Sequence[KnownDetection]
    ) -> tuple[SourceImage, list[Detection]] | ImageFailure:
        try:
            async with self._turns:
                await self._wait_for_place()
                with self._engine.admission.images.place():
                    data = await self._fetcher.fetch(image.url)
                    return image, await self._detections(image.id, data, known)
        except ResightError as error:
            return ImageFailure(image_id=image.id, error=str(error))
        except Exception as error:
            log.exception("antenna_image_failed", image=image.id, request_id=self.request_id)
            return ImageFailure(
                image_id=image.id, error=f"{type(error).__name__}; see the replica's log"
            )

    async def _wait_for_place(self) -> None:
        ends_s = time.monotonic() + WAIT_S
        while self._engine.admission.images.is_full and time.monotonic() < ends_s:
            await asyncio.sleep(STEP_S)

    async def _detections(
        self, image_id: str, data: bytes, known: Sequence[KnownDetection]
    ) -> list[Detection]:
        """Return the detections of an image: with a classifier, of the boxes that Antenna has, if any."""
        if self._classifier and (boxes := [k for k in known if k.bbox]):
            found = [
                Detection(
                    source_image_id=image_id,
                    bbox=box.bbox,
                    algorithm=box.algorithm,
                    timestamp=now(),
                    classifications=[],
                )
                for box in boxes
                if box.bbox
            ]
        else:
            ref = str(self._detector.id)
            detected = await when_free(
                lambda: self._engine.detect(data, ref, None, self.request_id)
            )
            answer = to_response(detected, None)
            seconds = answer.timings_ms.inference / 1e3
            found = [self._detection(image_id, one, seconds) for one in answer.detections]
        if self._classifier is None:
            return found
        classified, shared = list[Detection](), SharedImage()
        count = max(1, min(CONCURRENT_BOXES, self._engine.args.limits.online_queue // 8))
        async with self._decoding:
            for start in range(0, len(found), count):
                part = found[start : start + count]
                calls = [self._classified(one, data, self._classifier, shared) for one in part]
                classified += await asyncio.gather(*calls)
        return classified

    def _detection(self, image_id: str, found: WireDetection, seconds: float) -> Detection:
        """Return a detection with its label as a classification: Antenna has no other place for label and score."""
        x1, y1, x2, y2 = found.box_xyxy_px
        scores = [0.0] * len(self._detector.labels)
        scores[found.class_id] = found.score
        label = Classification(
            classification=found.label,
            scores=scores,
            inference_time=seconds,
            algorithm=reference(self._detector),
            terminal=self._classifier is None,
            timestamp=now(),
        )
        return Detection(
            source_image_id=image_id,
            bbox=BoundingBox(x1=x1, y1=y1, x2=x2, y2=y2),
            inference_time=seconds,
            algorithm=reference(self._detector),
            timestamp=now(),
            classifications=[label],
        )

    async def _classified(
        self, found: Detection, data: bytes, classifier: ModelInfo, shared: SharedImage
    ) -> Detection:
        box: Box = (found.bbox.x1, found.bbox.y1, found.bbox.x2, found.bbox.y2)
        ref = str(classifier.id)
        answer = await when_free(
            lambda: self._engine.classify(data, ref, box, None, self.request_id, shared)
        )
        species = Classification(
            classification=classifier.labels[int(answer.logits.argmax())],
            scores=softmax(answer.logits[None])[0].tolist(),
            logits=answer.logits.tolist(),
            inference_time=answer.timings.inference_ms / 1e3,
            algorithm=reference(classifier),
            terminal=True,
            timestamp=now(),
        )
        return found.model_copy(update={"classifications": [*found.classifications, species]})
