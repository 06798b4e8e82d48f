"""Points measured: replica processes started as a point needs them, and asked for one round at a time.

with Bench(version, args, photos, seconds, share) as bench: bench.current(), bench.measure(point) -> Round
The processes of the current settings stay for the whole sweep, so that they can be measured again in between;
those of other hardware end when the next is wanted. Where anything goes wrong they end at once, and the next
point has new ones: an answer that comes late is nobody's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from model_store.config import Batch
from model_store.errors import ModelNotReady, ResightError
from model_store.names import VersionId
from serve.settings import DetectArgs
from serve.tune.facts import Round
from serve.tune.load import Seen
from serve.tune.point import Hardware, Point
from serve.tune.replica import Closed, Open, Ready, Replica

CLOSED_SHARE = 1 / 3
"""Of the seconds of a round, for throughput; a percentile wants more requests than a mean."""


class Bench:
    """`seconds` for each round; `share` of a point's own throughput is what its open loop offers."""

    def __init__(
        self,
        version: VersionId,
        args: DetectArgs,
        photos: Sequence[bytes],
        seconds: float,
        share: float,
    ) -> None:
        self._version, self._args, self._photos = version, args, photos
        self._seconds, self._share = seconds, share
        self._kept = Hardware.of(args)
        self._up: dict[Hardware, list[Replica]] = {}
        self._first: Ready | None = None
        self._rounds = self._started = 0
        self._logs = tempfile.TemporaryDirectory(prefix="resight-tune-")

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hardware in list(self._up):
            self._stop(hardware)
        self._logs.cleanup()

    def current(self) -> tuple[Batch, str]:
        """The batch that a replica of the pool uses now, and its device.

        Raises ModelError, and ModelNotReady where the pool wants a GPU and there is none.
        """
        self._replicas(self._kept)
        assert self._first is not None
        if self._args.num_gpus and self._first.device == "cpu":
            raise ModelNotReady(
                f"{self._version} lives in the pool '{self._args.pool}', whose replicas have num_gpus "
                f"{self._args.num_gpus:g}, and its runtime finds no GPU here: tune it on such a machine"
            )
        return self._first.batch, self._first.device

    def measure(self, point: Point) -> Round:
        """Raises ResightError where a request fails, a process ends, or none can be started."""
        try:
            return self._measured(point)
        except ResightError:
            self._stop(point.hardware)
            raise

    def _measured(self, point: Point) -> Round:
        replicas = self._replicas(point.hardware)
        self._rounds += 1
        clients = clients_for(point, self._args.limits.online_queue)
        closed_s = CLOSED_SHARE * self._seconds
        closed = _both(replicas, [Closed(point, clients, closed_s) for _ in replicas])
        images = sum(len(one.latencies_ms) for one in closed)
        window_s = max(one.seconds for one in closed)
        rate = self._share * images / window_s
        opened = _both(
            replicas,
            [
                Open(point, rate / len(replicas), self._seconds - closed_s, 100 * self._rounds + i)
                for i in range(len(replicas))
            ],
        )
        return Round(
            closed_s=round(window_s, 4),
            closed_images=images,
            cpu_s=round(sum(one.cpu_s for one in closed), 4),
            offered_per_s=round(rate, 3),
            latencies_ms=tuple(ms for one in opened for ms in one.latencies_ms),
            unanswered=sum(one.unanswered for one in opened),
        )

    def _replicas(self, hardware: Hardware) -> list[Replica]:
        if hardware not in self._up:
            for other in [one for one in self._up if one != self._kept]:
                self._stop(other)
            threads, workers, count = hardware
            shape = {"threads": threads, "workers": workers, "replicas": count}
            args = self._args.model_copy(update=shape)
            self._up[hardware] = started = []
            try:
                for _ in range(count):
                    self._started += 1
                    log = Path(self._logs.name) / f"{self._started}.log"
                    started.append(Replica(self._version, args, self._photos, log))
                ready = [one.ready() for one in started]
            except BaseException:
                self._stop(hardware)
                raise
            self._first = self._first or ready[0]
        return self._up[hardware]

    def _stop(self, hardware: Hardware) -> None:
        for replica in self._up.pop(hardware, ()):
            replica.stop()


def clients_for(point: Point, admitted: int) -> int:
    """Of a replica: enough to fill the next batch of each worker while one runs and others are decoded, as far
    as the bound on admitted images allows.
    """
    return min(admitted, 2 * point.batch * point.workers + point.workers)


def _both(replicas: Sequence[Replica], loads: Sequence[Closed | Open]) -> list[Seen]:
    """All at once. Every answer is taken before an error is raised: the next one is to what is asked next."""
    for replica, load in zip(replicas, loads, strict=True):
        replica.ask(load)
    seen: list[Seen] = []
    failed: list[ResightError] = []
    for replica in replicas:
        try:
            seen.append(replica.answer())
        except ResightError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return seen
