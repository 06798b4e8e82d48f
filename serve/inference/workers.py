"""Threads of a replica: workers of two lanes, which infer, and decoders, which decode images of requests.

image(lane, model, PendingImage) -> result, ms waited
images(model, prepared) -> outcomes, in order
rows(model, tensor) -> raw outputs, ms waited

Workers decode as well if they occupy all cores (replicas are assumed to share them) and run one image at a time.
Handing an image to another thread would cost a context switch and cold caches (docs/decisions/0020).
Otherwise the workers fill batches, feed a GPU or leave cores idle, and separate threads decode.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model_store.crop_model import CropModel
from model_store.errors import DeadlinePassed
from model_store.images.decode import DecodedImage, ImageFacts
from model_store.load import Loaded, run_rows
from model_store.machine import usable_cores
from model_store.names import VersionId
from model_store.transform.preprocess import Prepared
from serve.inference.admission import Room, Threads
from serve.inference.batcher import Batcher, Lane, LaneBound
from serve.inference.results import CropResult, ImageResult
from serve.settings import DetectArgs

R = TypeVar("R")
Rows = dict[str, NDArray[np.float32]]
Result = ImageResult | CropResult | Rows
MIB = 1 << 20


async def gather_futures(futures: Sequence[Future[R]]) -> list[R | BaseException]:
    """Return results or errors, in order. If the caller is cancelled, all futures are cancelled.

    The event loop is woken once; asyncio.wrap_future wakes it for each future, which costs a run 0.2 ms per image.
    """
    loop = asyncio.get_running_loop()
    all_done: asyncio.Future[None] = loop.create_future()
    ended = itertools.count(1)  # next() is atomic in the interpreter: no lock needed

    def finish() -> None:
        if not all_done.done():
            all_done.set_result(None)

    def on_ended(_: Future[R]) -> None:
        if next(ended) == len(futures):
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits
                loop.call_soon_threadsafe(finish)

    for future in futures:
        future.add_done_callback(on_ended)
    if not futures:
        return []
    try:
        await all_done
    except asyncio.CancelledError:
        for future in futures:
            future.cancel()
        raise
    return [_outcome(future) for future in futures]


def _outcome(future: Future[R]) -> R | BaseException:
    if future.cancelled():
        return asyncio.CancelledError()
    error = future.exception()
    return future.result() if error is None else error


class PendingImage:
    """An encoded image, and its network input once it is decoded. Only one thread at a time may use it.

    `read` decodes and prepares the image for a model; `deadline_s` is a time of time.perf_counter.
    """

    def __init__(
        self, read: Callable[[], tuple[ImageFacts, Prepared]], encoded_bytes: int, deadline_s: float | None = None
    ) -> None:
        self._read, self._encoded_bytes, self.deadline_s = read, encoded_bytes, deadline_s
        self._done: tuple[ImageFacts, Prepared] | None = None
        self.preprocess_ms = 0.0
        self.waited_first = False
        """True if the image waited in a lane before it was decoded, not after."""

    @property
    def nbytes(self) -> int:
        """Size in memory while it waits: the encoded bytes, and the pixels once it is decoded."""
        return self._encoded_bytes + (self._done[1].pixels.nbytes if self._done else 0)

    @property
    def facts(self) -> ImageFacts:
        """Facts of the decoded image; `prepared` must have returned before."""
        assert self._done is not None
        return self._done[0]

    def prepared(self) -> Prepared:
        """Return the network input, decoded on the first call. Raises the errors of `read`, and DeadlinePassed."""
        if self._done is None:
            started = self._require_time("before the image was decoded")
            self._done = self._read()
            self.preprocess_ms = (time.perf_counter() - started) * 1e3
        self._require_time("before the image was inferred")
        return self._done[1]

    def _require_time(self, when: str) -> float:
        """Return the time of time.perf_counter. Raises DeadlinePassed."""
        now_s = time.perf_counter()
        if self.deadline_s is not None and now_s > self.deadline_s:
            raise DeadlinePassed(f"the deadline passed {when}")
        return now_s


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Key of items that may share a batch: images, or raw tensors (`raw`), of one version with the same files."""

    version: VersionId
    inference_key: str
    raw: bool


class SharedImage:
    """The pixels of an image for several crops. The first one decodes it, before the others are passed."""

    def __init__(self) -> None:
        self._image: DecodedImage | None = None

    def decoded(self, decode: Callable[[], DecodedImage]) -> DecodedImage:
        if self._image is None:
            self._image = decode()
        return self._image


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """An image of a request (PendingImage) or of a run (Prepared), or a network input (3, h, w) float32, and its model.

    The reference keeps a released model in memory until its last item has been answered.
    """

    model: Loaded
    data: PendingImage | Prepared | NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        return self.data.pixels.nbytes if isinstance(self.data, Prepared) else self.data.nbytes


def make_items(
    model: Loaded, data: Iterable[PendingImage | Prepared | NDArray[np.float32]], raw: bool = False
) -> tuple[BatchKey, list[Item]]:
    """Return the arguments of `Batcher.submit`."""
    return BatchKey(model.info.id, model.info.inference_key, raw), [Item(model, input_) for input_ in data]


def infer(key: BatchKey, items: Sequence[Item]) -> Sequence[Result]:
    """Run a batch and return one result per item. Raises the errors of decoding and of the model."""
    model = items[-1].model
    data = [d.prepared() if isinstance(d := item.data, PendingImage) else d for item in items]
    if key.raw:
        return run_rows(model, data)  # type: ignore[arg-type]
    if isinstance(model, CropModel):  # all inputs have the size of its network
        started = time.perf_counter()
        values = model.infer(np.concatenate([image.pixels for image in data]))  # type: ignore[union-attr]
        took_ms = (time.perf_counter() - started) * 1e3
        return [CropResult(row, took_ms) for row in values]
    done = model.infer(data)  # type: ignore[arg-type]
    return [ImageResult(d, done.inference_ms, done.postprocess_ms) for d in done.detections]


class Workers:
    """The batcher and the decoders of a replica. `ran(key, images)` is called after each batch that has a result."""

    def __init__(self, args: DetectArgs, ran: Callable[[BatchKey, int], None]) -> None:
        count, limits = args.worker_count(), args.limits
        all_cores_infer = args.threads == 1 and count * args.replicas >= usable_cores()
        self._decode_too = not args.num_gpus and all_cores_infer
        self._decoders = Threads(count, "decode calls run or wait", limits.online_queue + limits.bulk_queue)
        self.batcher: Batcher[BatchKey, Item, Result] = Batcher(
            run=infer,
            batch_of=lambda _, newest: newest.model.lane_batch,
            workers=count,
            bulk_share=args.bulk_share,
            bounds={
                # images, and crops in addition
                Lane.ONLINE: LaneBound(2 * limits.online_queue, limits.online_mib * MIB),
                Lane.BULK: LaneBound(limits.bulk_queue, limits.bulk_mib * MIB),
            },
            bytes_of=lambda item: item.nbytes,
            ran=ran,
            separate=not args.num_gpus,
        )

    async def image(self, lane: Lane, model: Loaded, image: PendingImage) -> tuple[Result, float]:
        """Return the model's result for an image, and its wait in the lane in ms.

        Raises ImageError, BadRequest, Overloaded, DeadlinePassed, ModelError.
        """
        image.waited_first = self._decode_too and model.lane_batch.max == 1
        if not image.waited_first:
            await self._decoders.run(image.prepared)
        (future,) = self.batcher.submit(*make_items(model, [image]), lane, image.deadline_s)
        try:
            return await asyncio.wrap_future(future)
        finally:  # break the cycle of error, traceback and this frame, which would keep the image until a collection
            del future

    async def images(self, model: Loaded, prepared: Iterable[Prepared]) -> list[tuple[Result, float] | BaseException]:
        """Return the outcomes of a run's images, in order. Raises Overloaded."""
        return await gather_futures(self.batcher.submit(*make_items(model, prepared), Lane.BULK))

    async def boxes(
        self, model: CropModel, read: Callable[[], list[Prepared]], deadline_s: float | None, room: Room
    ) -> tuple[list[tuple[CropResult, float]], float]:
        """Return the result of each crop that `read` returns with its wait in ms, and the time of `read` in ms.

        Crops are submitted together as far as `room` has places: the place of the image itself is enough for one at a
        time. Raises ImageError, Overloaded, DeadlinePassed, ModelError.
        """
        began_s = time.perf_counter()
        prepared = await self._decoders.run(read)
        read_ms = (time.perf_counter() - began_s) * 1e3
        done = list[tuple[CropResult, float]]()
        while left := prepared[len(done) :]:
            more = min(len(left) - 1, room.free // 2)  # half, for the crops of other images
            with room.place(more):
                futures = self.batcher.submit(*make_items(model, left[: 1 + more]), Lane.ONLINE, deadline_s)
                for outcome in await gather_futures(futures):
                    if isinstance(outcome, BaseException):
                        raise outcome
                    done.append(outcome)  # type: ignore[arg-type]
        return done, read_ms

    async def rows(
        self, model: Loaded, tensor: NDArray[np.float32], deadline_s: float | None
    ) -> tuple[list[Rows], float]:
        """Return the outputs by row of (n, 3, h, w), and the longest wait in ms. Raises Overloaded, DeadlinePassed."""
        futures = self.batcher.submit(*make_items(model, tensor, raw=True), Lane.ONLINE, deadline_s)
        done = await asyncio.gather(*map(asyncio.wrap_future, futures))
        waited_ms = max(waited for _, waited in done)
        return [row for row, _ in done if isinstance(row, dict)], waited_ms

    def stop(self) -> None:
        """Fail waiting items and stop the threads."""
        self.batcher.close()
        self._decoders.stop()
