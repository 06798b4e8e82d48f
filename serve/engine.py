"""One replica's work without HTTP and without Ray: queue, decode, prepare, infer.

detect(body, ref)      online lane: encoded bytes -> Answer
detect_chunk(chunk)    bulk lane: prepared uint8 pixels of many images -> ChunkAnswer, in order
classify, classify_chunk  the same of classifiers: encoded bytes and a box, or prepared crops, to logits
Both lanes end in the same `infer` of the model, so their rows are equal bit for bit. Work that waits holds its
model: a version that is released meanwhile still answers what it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
import structlog
from numpy.typing import NDArray

from model_store.classifier import Classifier
from model_store.crops import Box
from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.errors import (
    BadRequest,
    Overloaded,
    ResightError,
    StorageUnreachable,
)
from model_store.names import MAX_QUOTED, VersionId
from model_store.runtimes.inputs import joined
from model_store.store import ModelStore
from serve.answers import Answer, ClassAnswer, ClassResult, ImageResult, TensorAnswer, Timings
from serve.bounds import Room
from serve.chunks import Chunk, ChunkAnswer, LogitsAnswer, pack_answers, pack_logits
from serve.lanes import Lane
from serve.loading import Loader
from serve.metrics import Metrics, exposition
from serve.picture import Picture
from serve.placement import Placement
from serve.residents import Resident, Residents
from serve.settings import DetectArgs, Settings
from serve.shadows import Shadows
from serve.threads import Threads
from serve.traces import Traces
from serve.workers import Workers

log = structlog.get_logger("resight.serve")

LOOKUPS, MOST_LOOKUPS = 4, 64
"""Threads in which requests look into the model store, and how many look-ups may run or wait."""


class Engine:
    """Call `start` once on the event loop that serves requests."""

    def __init__(self, args: DetectArgs, traces: Traces | None = None) -> None:
        cv2.setNumThreads(1)
        self.args, self.traces = args, traces
        self.store = ModelStore(args.models or Settings().models_url)
        self.placement = Placement(self.store, args.pool, args.pools)
        self.lookups = Threads(LOOKUPS, "look-ups in the model store", MOST_LOOKUPS)
        self._loader = Loader(self.store, args.threads)
        self.residents = Residents(
            self.store,
            self._loader.load,
            args.idle_versions,
            args.retain_s,
            placement=self.placement,
            lookups=self.lookups,
            gives_way=args.threads == 1,  # threads that a session starts inherit it
        )
        self.workers = Workers(args, lambda key, size: self._metrics.batch(key.version, size))
        self.lanes = self.workers.lanes
        self.shadows = Shadows(self._detect_in_bulk)
        self._metrics = Metrics()
        self._most_pixels = args.limits.megapixels * 1_000_000
        self._admitted = 0
        self.forms = Room(args.limits.online_queue, "forms are being read")
        self._polling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load every aliased version, then keep following the alias files. Raises StorageUnreachable: who
        cannot read the store shall not take requests from those who could.
        """
        if not await self.residents.refresh():
            raise StorageUnreachable(
                f"the model store {self.store.url} cannot be read; see the log"
            )
        self._polling = asyncio.create_task(self._poll())

    async def ensure(self, version: VersionId, digest: str | None = None) -> str:
        """Load a version, proved first, unless it is here; its inference key. Raises as `Residents.bring`."""
        await self.residents.bring(version, digest)
        return self.residents.versions.use(version).info.inference_key

    def exposition(self) -> str:
        """This replica's metrics, in Prometheus' text format."""
        return exposition(self._metrics, self)

    def uploaded(self, outcome: str) -> None:
        """A picture was kept; its rows were recorded, or not."""
        self._metrics.uploaded(outcome)

    def stop(self) -> None:
        if self._polling:
            self._polling.cancel()
        self.shadows.stop()
        self.workers.stop()
        if self.traces:
            self.traces.stop()

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """A place among the images being answered, from before the body is read until the end.

        Raises Overloaded when the replica has its fill.
        """
        if self._admitted >= self.args.limits.online_queue:
            self._metrics.refused(None, "Overloaded")
            raise Overloaded(
                f"{self._admitted} images are being answered, the bound is "
                f"{self.args.limits.online_queue}",
                self.lanes.wait_s(Lane.ONLINE),
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def detect_chunk(self, chunk: Chunk) -> ChunkAnswer:
        """Raises BadRequest for a classifier, ModelError, Overloaded; a bad image fails alone, inside the answer."""
        detector = (await self.residents.get(chunk.model)).detector
        outcomes = await self.workers.images(detector, chunk.items())
        self._metrics.bulk(detector.info, len(outcomes))
        return pack_answers(detector.info, outcomes)  # type: ignore[arg-type]

    async def classify_chunk(self, chunk: Chunk) -> LogitsAnswer:
        """Raises BadRequest for a detector and for crops of another size than the network's, ModelError,
        Overloaded; a bad crop fails alone, inside the answer.
        """
        classifier = (await self.residents.get(chunk.model)).classifier
        _require_crops(chunk, classifier)
        outcomes = await self.workers.images(classifier, chunk.items())
        self._metrics.bulk(classifier.info, len(outcomes))
        return pack_logits(classifier.info, outcomes)  # type: ignore[arg-type]

    async def detect(
        self,
        body: bytes,
        ref: str | Resident,
        deadline_s: float | None = None,
        request_id: str = "",
    ) -> Answer:
        """Call it inside a `slot`; `deadline_s` on time.perf_counter's clock. Every one is counted and
        logged, with its version or with why there is no answer. A `Resident` is a reference that was
        resolved before, for several images that one version shall answer.

        Raises ImageError, ModelError, BadRequest, Overloaded, DeadlinePassed.
        """
        began_ns, sample = time.time_ns(), sample_of(body)
        resident = None if isinstance(ref, str) else ref
        try:
            resident = await self.residents.get(ref, sample) if isinstance(ref, str) else ref
            answer = await self._detect(body, resident, sample, deadline_s)
        except BaseException as error:
            asked = self._refused(ref, resident, request_id, error)
            if self.traces:
                self.traces.refused(began_ns, request_id, asked, error)
            raise
        self._metrics.seen(answer)
        if self.traces:
            self.traces.answered(began_ns, request_id, answer)
        log.info("detected", request=request_id, bytes=len(body), **answer.facts())
        return answer

    async def classify(
        self,
        body: bytes,
        ref: str,
        box_xyxy_px: Box | None = None,
        deadline_s: float | None = None,
        request_id: str = "",
    ) -> ClassAnswer:
        """As `detect`, of a classifier: the whole image, or a box of it in px of the upright image.

        Raises BadRequest also for a detector, and for a box that lies beside the image.
        """
        began_ns = time.time_ns()
        resident: Resident | None = None
        try:
            resident = await self.residents.get(ref, sample_of(body))
            answer = await self._classify(body, resident, box_xyxy_px, deadline_s)
        except BaseException as error:
            asked = self._refused(ref, resident, request_id, error, "not_classified")
            if self.traces:
                self.traces.refused(began_ns, request_id, asked, error, "classify")
            raise
        self._metrics.classified(answer)
        if self.traces:
            self.traces.answered(began_ns, request_id, answer, "classify")
        log.info("classified", request=request_id, bytes=len(body), **answer.facts())
        return answer

    def _refused(
        self,
        ref: str | Resident,
        resident: Resident | None,
        request_id: str,
        error: BaseException,
        event: str = "not_detected",
    ) -> str:
        """Count and log it; what was asked for, as far as it is known."""
        info, outcome = resident.model.info if resident else None, type(error).__name__
        asked = str(info.id) if info else str(ref)[:MAX_QUOTED]
        self._metrics.refused(info, outcome)
        log.info(event, request=request_id, model=asked, outcome=outcome)
        return asked

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Around what is done before there is an image to detect anything in: its refusals are counted too."""
        try:
            yield
        except ResightError as error:
            self._metrics.refused(None, type(error).__name__)
            raise

    async def _detect(
        self, body: bytes, resident: Resident, sample: float, deadline_s: float | None
    ) -> Answer:
        detector = resident.detector
        picture = self._picture(body, detector, deadline_s)
        result, queue_ms = await self.workers.image(Lane.ONLINE, detector, picture)
        assert isinstance(result, ImageResult)
        # from the other end: an image that the canary answers is no comparison with the active version
        candidate = self.residents.shadow_of(detector.info.name, resident.alias, 1 - sample)
        if candidate is not None:
            self.shadows.show(body, detector, result.detections, candidate)
        took = (picture.preprocess_ms, result.inference_ms, result.postprocess_ms)
        return Answer(
            detector.info,
            resident.alias,
            detector,
            picture.facts,
            result.detections,
            Timings(queue_ms, *took),
            picture.waited_first,
        )

    async def _classify(
        self,
        body: bytes,
        resident: Resident,
        box_xyxy_px: Box | None,
        deadline_s: float | None,
    ) -> ClassAnswer:
        classifier, most = resident.classifier, self._most_pixels
        picture = Picture(lambda: classifier.read(body, box_xyxy_px, most), len(body), deadline_s)
        result, queue_ms = await self.workers.image(Lane.ONLINE, classifier, picture)
        assert isinstance(result, ClassResult)
        return ClassAnswer(
            classifier.info,
            resident.alias,
            picture.facts,
            box_xyxy_px,
            result.logits,
            Timings(queue_ms, picture.preprocess_ms, result.inference_ms, 0.0),
            picture.waited_first,
        )

    async def infer_tensor(
        self,
        tensor: NDArray[np.float32],
        resident: Resident,
        deadline_s: float | None = None,
        request_id: str = "",
    ) -> TensorAnswer:
        """(n, 3, h, w) float32 through the network alone, no decoding of boxes; online lane. Rows that
        batches made of different lengths are filled up with zeros, as within a batch. Counted and logged.

        Call it inside a `slot`. Raises ModelError, Overloaded, DeadlinePassed.
        """
        try:
            answer = await self._infer_tensor(tensor, resident, deadline_s)
        except BaseException as error:
            self._refused("", resident, request_id, error)
            raise
        self._metrics.inferred(answer.model, len(tensor))
        log.info("inferred", request=request_id, rows=len(tensor), **answer.facts())
        return answer

    async def _infer_tensor(
        self, tensor: NDArray[np.float32], resident: Resident, deadline_s: float | None
    ) -> TensorAnswer:
        rows, queue_ms = await self.workers.rows(resident.detector, tensor, deadline_s)
        outputs = {name: joined([row[name][np.newaxis] for row in rows]) for name in rows[0]}
        return TensorAnswer(resident.detector.info, resident.alias, outputs, queue_ms)

    async def _detect_in_bulk(self, body: bytes, detector: LoadedDetector) -> Detections:
        picture = self._picture(body, detector)
        result, _ = await self.workers.image(Lane.BULK, detector, picture)
        assert isinstance(result, ImageResult)
        return result.detections

    def _picture(
        self, body: bytes, detector: LoadedDetector, deadline_s: float | None = None
    ) -> Picture:
        most = self._most_pixels
        return Picture(lambda: detector.read(body, most), len(body), deadline_s)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.args.poll_s)
            try:
                await self.residents.refresh()
                await self.retune()
            except Exception:  # whatever it was, the next look may go better
                log.exception("poll_failed")

    async def retune(self) -> None:
        """Take over what deployment.json says now."""
        for version in self.residents.loaded:
            if version not in self.residents.versions:
                continue  # released meanwhile
            now = self.residents.model(version)
            tuned = await self.residents.files.run(self._loader.tuned, now)
            if tuned.batch != now.batch:
                self.residents.versions.exchange(version, tuned)
                log.info("retuned", version=str(version), **tuned.batch.model_dump())


def _require_crops(chunk: Chunk, classifier: Classifier) -> None:
    """Raises BadRequest where pictures are not of the size that the network takes."""
    across, down = classifier.config.preprocess.input_px
    if not (chunk.shapes[:, :3] == (1, down, across)).all():
        tiles, high, wide = chunk.shapes[0, :3].tolist()
        raise BadRequest(
            f"{classifier.info.id} takes one picture of {across} x {down} px at a time; {tiles} of {wide} x "
            f"{high} px were sent: prepare them with this version"
        )


def sample_of(body: bytes) -> float:
    """0 to 1 by the image's own bytes: one image always meets the same version while a canary lasts."""
    return zlib.crc32(body[-4096:]) / 2**32
