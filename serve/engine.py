"""One replica's work without HTTP and without Ray: decode, prepare, queue, infer.

detect(body, ref)    online lane: encoded bytes -> Answer
detect_chunk(chunk)  bulk lane: prepared uint8 pixels of many images -> ChunkAnswer, in order
Both end in the same `LoadedDetector.infer`, so their rows are equal bit for bit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import structlog
from numpy.typing import NDArray

from model_store.detections import Detections
from model_store.detector import LoadedDetector, load_detector, with_measured_batch
from model_store.errors import Overloaded
from model_store.images import ImageFacts
from model_store.names import VersionId
from model_store.preprocess import Prepared
from model_store.store import ModelInfo, ModelStore
from serve.chunks import Chunk, ChunkAnswer, pack_answers
from serve.lanes import Lane, Lanes
from serve.residents import Residents
from serve.settings import DetectArgs, Settings

log = structlog.get_logger("resight.serve")


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of one image; inference and postprocess are those of its batch."""

    queue_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True, slots=True)
class ImageResult:
    detections: Detections
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything an HTTP answer says."""

    model: ModelInfo
    alias: str | None
    detector: LoadedDetector
    image: ImageFacts
    detections: Detections
    timings: Timings


@dataclass(frozen=True, slots=True)
class TensorAnswer:
    """Raw outputs by name, (n, …) each."""

    model: ModelInfo
    alias: str | None
    outputs: dict[str, NDArray[np.float32]]


class LaneKey(NamedTuple):
    """What shares a batch: prepared images of one version, or raw tensors of one."""

    version: VersionId
    raw: bool = False


Rows = dict[str, NDArray[np.float32]]
Item = Prepared | NDArray[np.float32]


class Engine:
    """Call `start` once on the event loop that serves requests."""

    def __init__(self, args: DetectArgs) -> None:
        cv2.setNumThreads(1)
        self.args = args
        self.store = ModelStore(args.models or Settings().models_url)
        self.residents = Residents(self.store, self._load, args.idle_versions)
        workers = args.worker_count()
        self._decoders = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._lanes: Lanes[LaneKey, Any, Any] = Lanes(
            run=self._infer,
            batch_of=lambda key: self.residents.detector(key.version).lane_batch,
            workers=workers,
            bulk_share=args.bulk_share,
            limits={Lane.ONLINE: args.limits.online_queue, Lane.BULK: args.limits.bulk_queue},
        )
        self._admitted = 0
        self._polling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load every aliased version, then keep following the alias files."""
        await self.residents.refresh()
        self._polling = asyncio.create_task(self._poll())

    def stop(self) -> None:
        if self._polling:
            self._polling.cancel()
        self._lanes.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """A place among the images being answered, from before the body is read until the end.

        Raises Overloaded when the replica has its fill.
        """
        if self._admitted >= self.args.limits.online_queue:
            raise Overloaded(
                f"{self._admitted} images are being answered, the bound is "
                f"{self.args.limits.online_queue}",
                self._lanes.wait_s(Lane.ONLINE),
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def detect_chunk(self, chunk: Chunk) -> ChunkAnswer:
        """Raises ModelError, Overloaded; a bad image fails alone, inside the answer."""
        resident = await self.residents.get(chunk.model)
        items = chunk.items()
        key = LaneKey(resident.detector.info.id)
        futures = self._lanes.submit(key, items, Lane.BULK)
        outcomes = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        return pack_answers(resident.detector.info, outcomes)

    async def detect(self, body: bytes, ref: str) -> Answer:
        """Call it inside a `slot`. Raises ImageError, ModelError, BadRequest, Overloaded."""
        resident = await self.residents.get(ref)
        detector = resident.detector
        loop = asyncio.get_running_loop()
        image, prepared, preprocess_ms = await loop.run_in_executor(
            self._decoders, self._decode, body, detector
        )
        (future,) = self._lanes.submit(LaneKey(detector.info.id), [prepared], Lane.ONLINE)
        result, queue_ms = await asyncio.wrap_future(future)
        timings = Timings(queue_ms, preprocess_ms, result.inference_ms, result.postprocess_ms)
        return Answer(detector.info, resident.alias, detector, image, result.detections, timings)

    async def infer_tensor(self, tensor: NDArray[np.float32], ref: str) -> TensorAnswer:
        """(n, 3, h, w) float32 through the network alone, no decoding of boxes; online lane.

        Call it inside a `slot`. Raises ModelError, BadRequest, Overloaded.
        """
        resident = await self.residents.get(ref)
        key = LaneKey(resident.detector.info.id, raw=True)
        futures = self._lanes.submit(key, list(tensor), Lane.ONLINE)
        done = await asyncio.gather(*map(asyncio.wrap_future, futures))
        rows = [row for row, _ in done]
        outputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return TensorAnswer(resident.detector.info, resident.alias, outputs)

    def _decode(self, body: bytes, detector: LoadedDetector) -> tuple[ImageFacts, Prepared, float]:
        started = time.perf_counter()
        facts, prepared = detector.read(body, self.args.limits.megapixels * 1_000_000)
        return facts, prepared, (time.perf_counter() - started) * 1e3

    def _infer(self, key: LaneKey, items: Sequence[Item]) -> Sequence[ImageResult | Rows]:
        detector = self.residents.detector(key.version)
        if key.raw:
            return detector.run_rows(items)  # type: ignore[arg-type]
        done = detector.infer(items)  # type: ignore[arg-type]
        return [ImageResult(d, done.inference_ms, done.postprocess_ms) for d in done.detections]

    def _load(self, version: VersionId) -> LoadedDetector:
        started = time.perf_counter()
        detector = with_measured_batch(load_detector(self.store, version, self.args.threads))
        seconds = round(time.perf_counter() - started, 3)
        log.info(
            "model_loaded",
            version=str(version),
            device=detector.session.device,
            batch=detector.batch.max,
            s=seconds,
        )
        return detector

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.args.poll_s)
            await self.residents.refresh()
