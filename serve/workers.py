"""What computes in a replica: workers of two lanes, decoders beside them, and how an image goes through.

image(lane, model, Picture) -> result, ms waited
images(model, prepared) -> outcomes, in order
rows(model, tensor) -> raw outputs, ms waited

Where all cores infer (replicas are taken to share theirs), one image at a time each, a worker decodes the images of
requests as well: what is handed from
thread to thread waits for the system at each hand, and finds the caches cold (docs/decisions/0020). Workers that fill
batches, feed a GPU, or leave cores to others find images decoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from model_store.detector import LoadedDetector
from model_store.loaded import Loaded
from model_store.machine import usable_cores
from model_store.preprocess import Prepared
from serve.answers import ClassResult, ImageResult
from serve.lanes import Bound, Lane, Lanes
from serve.picture import Picture
from serve.settings import DetectArgs
from serve.threads import Threads
from serve.together import all_ended
from serve.work import Item, LaneKey, Rows, batch_of, infer, work

MIB = 1 << 20
Result = ImageResult | ClassResult | Rows


class Workers:
    """`ran(key, images)` hears of each batch that has a result."""

    def __init__(self, args: DetectArgs, ran: Callable[[LaneKey, int], None]) -> None:
        count, limits = args.worker_count(), args.limits
        all_cores_infer = args.threads == 1 and count * args.replicas >= usable_cores()
        self._decode_too = not args.num_gpus and all_cores_infer
        most = limits.online_queue + limits.bulk_queue
        self._decoders = Threads(count, "decode calls", most)
        self.lanes: Lanes[LaneKey, Item, Result] = Lanes(
            run=infer,
            batch_of=batch_of,
            workers=count,
            bulk_share=args.bulk_share,
            bounds={
                Lane.ONLINE: Bound(limits.online_queue, limits.online_mib * MIB),
                Lane.BULK: Bound(limits.bulk_queue, limits.bulk_mib * MIB),
            },
            bytes_of=lambda item: item.nbytes,
            ran=ran,
            apart=not args.num_gpus,
        )

    async def image(self, lane: Lane, model: Loaded, picture: Picture) -> tuple[Result, float]:
        """What the model makes of it, and how long it waited in the lane, in ms.

        Raises ImageError, BadRequest, Overloaded, DeadlinePassed, ModelError.
        """
        picture.waited_first = self._decode_too and model.lane_batch.max == 1
        if not picture.waited_first:
            await self._decoders.run(picture.prepared)
        (future,) = self.lanes.submit(*work(model, [picture]), lane, picture.deadline_s)
        try:
            return await asyncio.wrap_future(future)
        finally:  # an error's traceback holds this frame, and it would hold the error: an image, until a collection
            del future

    async def images(
        self, model: Loaded, prepared: Iterable[Prepared]
    ) -> list[tuple[Result, float] | BaseException]:
        """Of a run, in order. Raises Overloaded."""
        return await all_ended(self.lanes.submit(*work(model, prepared), Lane.BULK))

    async def rows(
        self, model: LoadedDetector, tensor: NDArray[np.float32], deadline_s: float | None
    ) -> tuple[list[Rows], float]:
        """Raw outputs of each of (n, 3, h, w), and the longest that one waited, in ms.

        Raises Overloaded, DeadlinePassed.
        """
        futures = self.lanes.submit(*work(model, tensor, raw=True), Lane.ONLINE, deadline_s)
        done = await asyncio.gather(*map(asyncio.wrap_future, futures))
        waited_ms = max(waited for _, waited in done)
        return [row for row, _ in done if isinstance(row, dict)], waited_ms

    def stop(self) -> None:
        self.lanes.close()
        self._decoders.stop()
