"""The engine of a replica, without HTTP and without Ray: queue, decode, prepare, infer.

detect(body, ref)         online lane: encoded bytes -> Answer
infer_crop(body, ref, …)  online lane: encoded bytes and a box, for a classifier or an embedder -> CropAnswer
classify_boxes(body, …)   online lane: encoded bytes and the boxes of a detector -> BoxesAnswer
detect_chunk(chunk)       bulk lane: prepared uint8 pixels of many images -> ChunkAnswer, in order
crops_chunk(chunk)        bulk lane: prepared crops -> CropsAnswer, in order

Both lanes call the same `infer` of the model, so their results are equal bit for bit. Waiting items refer to their
model, so a version that is released still answers them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model_store.classifier import Classifier
from model_store.crop_model import CropModel
from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.errors import BadRequest
from model_store.images.crops import Box
from model_store.images.decode import ImageFacts
from model_store.listed_store import ListedStore
from model_store.names import VersionId
from model_store.runtimes.inputs import joined
from model_store.store import ModelStore
from model_store.transform.preprocess import Prepared
from serve.inference.admission import Admission, Threads
from serve.inference.batcher import Lane
from serve.inference.chunks import Chunk, ChunkAnswer, CropsAnswer, pack_answers, pack_crops
from serve.inference.results import Answer, BoxesAnswer, CropAnswer, CropResult, ImageResult, TensorAnswer, Timings
from serve.inference.workers import PendingImage, SharedImage, Workers
from serve.models.alias_poller import AliasPoller
from serve.models.loaded_models import LoadedModels, Loader, NoProver, Prover
from serve.models.pools import Placement, Serving
from serve.models.resolver import ModelResolver, ResolvedModel
from serve.models.shadow import Shadows
from serve.observability.metrics import CLASSIFY, DETECT, EMBED, INFER, Metrics, Observer, exposition
from serve.observability.traces import Traces
from serve.rollout.state import ModelState
from serve.settings import DetectArgs, Settings

LOOKUPS, MAX_LOOKUPS = 4, 64
"""Threads for look-ups of requests in the model store, and the maximum number of look-ups that run or wait."""


class Engine:
    """Models, lanes and metrics of a replica. Call `start` once on the event loop that serves requests.

    A request calls `detect`, `infer_crop` or `infer_tensor` with a place of `admission.images` for each image.
    `prover` is the rollout, which permits each load; None: versions are loaded without a proof.
    """

    def __init__(self, args: DetectArgs, traces: Traces | None = None, prover: Prover | None = None) -> None:
        cv2.setNumThreads(1)
        self.args, self.traces = args, traces
        self.store = ModelStore(args.models or Settings().models_url)
        polled = ListedStore(self.store.url)
        self.placement = Placement(polled, args.pool, args.pools)
        self.lookups = Threads(LOOKUPS, "look-ups in the model store run or wait", MAX_LOOKUPS)
        loader = Loader(self.store, args.threads)
        self.models = LoadedModels(
            loader.load,
            prover or NoProver(self.store),
            args.idle_versions,
            args.retain_s,
            low_priority=args.threads == 1,  # threads started by a session inherit the priority
        )
        self.aliases = AliasPoller(
            polled,
            self.models,
            self.placement,
            lambda model: loader.tuned(model, polled),
            args.poll_s,
            args.retain_s,
            has_rollout=prover is not None,
        )
        self.resolver = ModelResolver(self.store, self.models, self.aliases, self.lookups)
        self.metrics = Metrics()
        self.observer = Observer(self.metrics, traces)
        self.workers = Workers(args, lambda key, size: self.metrics.batch(key.version, size))
        self.batcher = self.workers.batcher
        self.admission = Admission(
            args.limits, lambda: self.batcher.wait_s(Lane.ONLINE), lambda: self.metrics.failed(None, "Overloaded")
        )
        self.shadows = Shadows(self._detect_in_bulk)
        self._max_pixels = args.limits.megapixels * 1_000_000

    async def start(self) -> None:
        """Load every aliased version, then follow the alias files. Raises StorageUnreachable."""
        await self.aliases.start()

    def serving(self) -> Serving:
        failures = {label: str(error) for label, error in self.aliases.errors.items()}
        return Serving(tuple(map(str, self.models.names)), failures)

    def exposition(self) -> str:
        return exposition(self.metrics, self)

    def stop(self) -> None:
        self.aliases.stop()
        self.shadows.stop()
        self.workers.stop()
        if self.traces:
            self.traces.stop()

    async def detect_chunk(self, chunk: Chunk) -> ChunkAnswer:
        """Detect in a chunk; `errors` has bad images. Raises BadRequest, ModelError, Overloaded."""
        detector = (await self.resolver.get(chunk.model)).detector
        outcomes = await self.workers.images(detector, chunk.items())
        self.metrics.bulk(detector.info, len(outcomes))
        return pack_answers(detector.info, outcomes)  # type: ignore[arg-type]

    async def crops_chunk(self, chunk: Chunk) -> CropsAnswer:
        """Run a model of crops; `errors` has bad images. Raises BadRequest, ModelError, Overloaded."""
        model = (await self.resolver.get(chunk.model)).crop_model(CropModel)
        _require_crops(chunk, model)
        outcomes = await self.workers.images(model, chunk.items())
        self.metrics.bulk(model.info, len(outcomes))
        return pack_crops(model, outcomes)  # type: ignore[arg-type]

    async def detect(
        self, body: bytes, ref: str | ResolvedModel, deadline_s: float | None = None, request_id: str = ""
    ) -> Answer:
        """Detect in one encoded image. Raises ImageError, ModelError, BadRequest, Overloaded, DeadlinePassed.

        Pass a `ResolvedModel` to have several images answered by the same version. `deadline_s` is a time of
        time.perf_counter. Every call is counted and logged, with its version or its error.
        """
        name = ref if isinstance(ref, str) else ""
        with self.observer.request(DETECT, name, request_id, bytes=len(body)) as request:
            sample = sample_of(body)
            request.model = model = await self.resolver.get(ref, sample) if isinstance(ref, str) else ref
            detector = model.detector
            image = self._pending(body, detector, deadline_s)
            result, queue_ms = await self.workers.image(Lane.ONLINE, detector, image)
            assert isinstance(result, ImageResult)
            # 1 - sample: images answered by the canary are not comparisons with the active version
            candidate = self.resolver.shadow(detector.info.name, model.alias, 1 - sample)
            if candidate is not None:
                self.shadows.start(body, detector, result.detections, candidate)
            times = Timings(queue_ms, image.preprocess_ms, result.inference_ms, result.postprocess_ms)
            request.answer = answer = Answer(
                detector.info, model.alias, detector, image.facts, result.detections, times, image.waited_first
            )
        return answer

    async def infer_crop(
        self,
        kind: type[CropModel],
        body: bytes,
        ref: str | ResolvedModel,
        box_xyxy_px: Box | None = None,
        deadline_s: float | None = None,
        request_id: str = "",
        shared: SharedImage | None = None,
    ) -> CropAnswer:
        """Run a model of this kind on one encoded image, or a box of it in px of the upright image.

        Pass the same `shared` for several boxes of an image: the first one decodes it, and the others follow. Raises as
        `detect`, and BadRequest for a box that lies outside the image.
        """
        observed, name = CLASSIFY if kind is Classifier else EMBED, ref if isinstance(ref, str) else ""
        with self.observer.request(observed, name, request_id, bytes=len(body)) as request:
            resolved = await self.resolver.get(ref, sample_of(body)) if isinstance(ref, str) else ref
            request.model = resolved
            model, max_px = resolved.crop_model(kind), self._max_pixels

            def read() -> tuple[ImageFacts, Prepared]:
                if shared is None:
                    return model.read(body, box_xyxy_px, max_px)
                whole = shared.decoded(lambda: model.decode(body, max_px))
                return model.read_box(whole, box_xyxy_px)

            image = PendingImage(read, len(body), deadline_s)
            result, queue_ms = await self.workers.image(Lane.ONLINE, model, image)
            assert isinstance(result, CropResult)
            times = Timings(queue_ms, image.preprocess_ms, result.inference_ms, 0.0)
            request.answer = answer = CropAnswer(
                model.info, resolved.alias, image.facts, box_xyxy_px, result.values, times, image.waited_first
            )
        return answer

    async def classify_boxes(
        self,
        body: bytes,
        resolved: ResolvedModel,
        boxes_xyxy_px: Sequence[Box],
        deadline_s: float | None = None,
        request_id: str = "",
    ) -> BoxesAnswer:
        """Classify the boxes of an encoded image, in px of the upright image, in the online lane.

        The crops are those of a run without margin. Raises as `detect`.
        """
        with self.observer.request(CLASSIFY, "", request_id, bytes=len(body)) as request:
            request.model = resolved
            model, max_px = resolved.crop_model(Classifier), self._max_pixels
            done, read_ms = [], 0.0
            if boxes_xyxy_px:
                done, read_ms = await self.workers.boxes(
                    model, lambda: model.read_boxes(body, boxes_xyxy_px, max_px), deadline_s, self.admission.crops
                )
            times = Timings(
                max((queue_ms for _, queue_ms in done), default=0.0),
                read_ms,
                max((result.inference_ms for result, _ in done), default=0.0),
                0.0,
            )
            values = np.array([result.values for result, _ in done], np.float32).reshape(-1, model.width)
            request.answer = answer = BoxesAnswer(model.info, resolved.alias, values, times)
        return answer

    async def infer_tensor(
        self,
        tensor: NDArray[np.float32],
        resolved: ResolvedModel,
        deadline_s: float | None = None,
        request_id: str = "",
    ) -> TensorAnswer:
        """Run the network on (n, 3, h, w) float32 in the online lane. Raises ModelError, Overloaded, DeadlinePassed.

        No boxes are decoded. Outputs of different lengths are padded with zeros, as within a batch. Every call is
        counted and logged.
        """
        with self.observer.request(INFER, "", request_id, rows=len(tensor)) as request:
            request.model = resolved
            rows, queue_ms = await self.workers.rows(resolved.model, tensor, deadline_s)
            outputs = {name: joined([row[name][np.newaxis] for row in rows]) for name in rows[0]}
            request.answer = answer = TensorAnswer(resolved.model.info, resolved.alias, outputs, queue_ms)
        return answer

    async def _detect_in_bulk(self, body: bytes, detector: LoadedDetector) -> Detections:
        result, _ = await self.workers.image(Lane.BULK, detector, self._pending(body, detector))
        assert isinstance(result, ImageResult)
        return result.detections

    def _pending(self, body: bytes, detector: LoadedDetector, deadline_s: float | None = None) -> PendingImage:
        max_px = self._max_pixels
        return PendingImage(lambda: detector.read(body, max_px), len(body), deadline_s)


class Replica:
    """The calls of a host to an engine; in a cluster they arrive by handle."""

    engine: Engine

    async def serving(self) -> Serving:
        return self.engine.serving()

    async def detect_chunk(self, chunk: Chunk) -> ChunkAnswer:
        return await self.engine.detect_chunk(chunk)

    async def crops_chunk(self, chunk: Chunk) -> CropsAnswer:
        return await self.engine.crops_chunk(chunk)

    async def holds(self, version: VersionId, digest: str) -> bool:
        """Return whether a version is loaded from files of this digest.

        This counts as a use, so that a version that a rollout relies on is not released as idle.
        """
        models = self.engine.models
        if version in models:
            models.use(version)
        return models.holds(version, digest)

    async def ensure(self, version: VersionId, digest: str | None = None) -> None:
        """Load a version, from files of this digest if one is given, unless it is loaded. Raises ModelError."""
        await self.engine.aliases.ensure(version, digest)

    async def activate(self, name: str, state: ModelState, pool: str, version: str | None = None) -> None:
        """Set the pool of a model and, in that pool, activate its state. Raises as `AliasPoller.activate`."""
        self.engine.placement.set(name, pool)
        if pool == self.engine.args.pool:
            await self.engine.aliases.activate(name, state, version)

    async def release(self, version: VersionId) -> bool:
        """Release a version; return False if it was not loaded. Raises Conflict if an alias or a run needs it."""
        return await self.engine.aliases.release(version)

    async def lease(self, version: VersionId, holder: str, for_s: float) -> None:
        """Load a version if necessary and protect it from release; with `for_s` 0, end that. Raises ModelError."""
        if for_s > 0:
            await self.ensure(version)
        self.engine.models.lease(version, holder, for_s)


def _require_crops(chunk: Chunk, model: CropModel) -> None:
    """Raise BadRequest unless each image is one tile of the network's input size."""
    width, height = model.config.preprocess.input_px
    if not (chunk.shapes[:, :3] == (1, height, width)).all():
        tiles, sent_height, sent_width = chunk.shapes[0, :3].tolist()
        raise BadRequest(
            f"{model.info.id} requires one crop of {width} x {height} px at a time, not {tiles} of "
            f"{sent_width} x {sent_height} px: prepare them with this version"
        )


def sample_of(body: bytes) -> float:
    """Return a number from 0 to 1 by an image's bytes, so that a canary always gets the same images.

    It depends on the size and both ends, as files may be padded. A checksum would not spread similar images.
    """
    digest = hashlib.blake2b(b"%d" % len(body) + body[:4096] + body[-4096:], digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
