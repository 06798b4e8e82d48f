"""Run a sweep: which points are measured, in which order, and which of them is best.

current settings -> batch x threads x workers -> wait -> replicas -> scaled decoding -> the best points again.
The current settings are measured again between two kinds of processes, which shows whether the machine is steady.
The best points are confirmed in turn with them, because the best of many noisy figures is partly luck.

Points are measured with the replica's own engine under load, in child processes without Ray and HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.config import Batch
from model_store.detector import LoadedDetector
from model_store.errors import BadRequest, ModelNotReady, Overloaded, ResightError
from serve.inference.engine import Engine
from serve.log_config import configure_logs
from serve.settings import DetectArgs
from serve.tune.plan import CONFIRM_ROUNDS, TuningPlan, first_points
from serve.tune.results import Hardware, MeasuredPoint, Point, Round, TuningResult, choose

CLOSED_SHARE = 1 / 3  # of a round's seconds, for throughput; a percentile needs more requests.
WARM_SHARE = 0.2  # of a closed loop, not counted.
PATIENCE_S = 5.0  # for an answer in a closed loop and the last ones of an open loop.
SETTLE_S = 0.05  # between two loops, in which cancelled requests end.
SLACK_S = 60.0  # for a round to end.
MARGIN, MAX_MARGIN = 0.03, 0.15
"""Shares by which equal throughputs differ at most: on a quiet machine, and on any."""
CONFIRM_ATTEMPTS = 2
Detect = Callable[[], Awaitable[None]]
Report = Callable[[MeasuredPoint], None]


def run(plan: TuningPlan, report: Report) -> TuningResult:
    """Measure the plan in replica processes; `report` gets each figure. Raises ModelError if the version fails."""
    with closing(Bench(plan)) as bench:
        batch, device = bench.current()
        return Sweep(plan, plan.current(batch.max, batch.wait_ms), bench.measure, report).run(device)


class Sweep:
    """One sweep; pure, except for `measure` and `report`."""

    def __init__(self, plan: TuningPlan, current: Point, measure: Callable[[Point], Round], report: Report) -> None:
        self._plan, self._current = plan, current
        self._measure, self._report = measure, report
        self._measured: dict[Point, MeasuredPoint] = {}

    def run(self, device: str) -> TuningResult:
        """Measure all stages and choose. Raises ResightError if the current settings cannot be measured."""
        space, cores = self._plan.space, self._plan.setup.machine.cores
        self._round(self._current)
        self._stage(first_points(self._current, cores, space))
        waits = product(self._leaders(min_batch=2), space.waits_ms)
        self._stage(point.replace(wait_ms=wait_ms) for point, wait_ms in waits)
        best = self._leaders()[0]
        workers = best.workers * best.replicas
        counts = sorted(space.replicas)
        self._stage(best.replace(replicas=n, workers=workers // n) for n in counts if workers % n == 0)
        shrunk = [self._leaders()[0].replace(jpeg_shrink=self._plan.shrink)] if self._plan.shrink else []
        self._stage(shrunk)
        return self._result(self._confirm(shrunk), device)

    def _stage(self, points: Iterable[Point]) -> None:
        """Measure the points that are new."""
        for point in points:
            if point not in self._measured:
                if point.hardware != next(reversed(self._measured)).hardware:
                    self._round(self._current)
                self._round(point)

    def _confirm(self, shrunk: Sequence[Point]) -> list[MeasuredPoint]:
        """Measure the best points again, in turn with the current settings, and return those.

        If they turn out to be worse than another one, that one is confirmed too.
        """
        confirmed = [self._current]
        for attempt in range(CONFIRM_ATTEMPTS):
            leaders = [point for point in self._leaders() if point not in confirmed]
            if attempt and not leaders:
                break
            for point in CONFIRM_ROUNDS * [self._current, *leaders, *shrunk]:
                self._round(point)
            confirmed += leaders
        return [self._measured[point] for point in confirmed]

    def _round(self, point: Point) -> None:
        """Measure a point once more, unless it has failed. Raises ResightError for the current settings only."""
        measured = self._measured.get(point, MeasuredPoint(point=point))
        if measured.failed:
            return
        try:
            measured = MeasuredPoint(point=point, rounds=(*measured.rounds, self._measure(point)))
        except ResightError as error:
            if point == self._current:
                raise
            measured = MeasuredPoint(point=point, failed=f"{type(error).__name__}: {error}")
        self._measured[point] = measured
        self._report(measured)

    def _leaders(self, min_batch: int = 1) -> list[Point]:
        """Return the best point with the current inference key, and the best applicable one."""
        every = [m for m in self._measured.values() if m.rounds and m.point.batch >= min_batch]
        own = [m for m in every if m.point.same_key(self._current)]
        applicable = [m for m in own if m.point.applicable(self._current)]
        pools = [pool for pool in (own, applicable) if pool]
        leaders = [self._choose(pool) or min(pool, key=lambda m: m.p99_ms).point for pool in pools]
        return list(dict.fromkeys(leaders))

    def _choose(self, points: Iterable[MeasuredPoint], margin: float = MARGIN) -> Point | None:
        return choose(points, self._plan.setup.objective_p99_ms, self._current, margin)

    def _result(self, final: Sequence[MeasuredPoint], device: str) -> TuningResult:
        rates = [r.images_per_s for r in self._measured[self._current].rounds]
        unsteady = (max(rates) - min(rates)) / median(rates)
        margin = min(MAX_MARGIN, max(MARGIN, unsteady / 2))
        return TuningResult(
            **dict(self._plan.setup),
            device=device,
            current=self._current,
            points=tuple(self._measured.values()),
            margin=round(margin, 4),
            unsteady=round(unsteady, 4),
            best=self._choose(final, margin),
            applies=self._choose((m for m in final if m.point.applicable(self._current)), margin),
        )


class Bench:
    """Replica processes by hardware, started as points need them. Call close() at the end."""

    def __init__(self, plan: TuningPlan) -> None:
        self._plan, self._kept = plan, Hardware.of(plan.args)
        self._running: dict[Hardware, list[ReplicaProcess]] = {}

    def current(self) -> tuple[Batch, str]:
        """Return the batch and the device of a replica with the current settings.

        Raises what loading raises, and ModelNotReady if the pool has GPUs and the runtime finds none.
        """
        batch, device = self._replicas(self._kept)[0].loaded
        pool = self._plan.args
        if pool.num_gpus and device == "cpu":
            raise ModelNotReady(
                f"the pool '{pool.pool}' has num_gpus {pool.num_gpus:g}, but the runtime finds no GPU here: tune there"
            )
        return batch, device

    def measure(self, point: Point) -> Round:
        """Measure one round. Raises ResightError if a request fails, or a process ends or cannot start.

        Then all processes of the point end, so that a late answer is not taken for that of another point.
        """
        try:
            replicas = self._replicas(point.hardware)
            for replica in replicas:
                replica.send(point)
            limit_s = self._plan.setup.seconds + 2 * PATIENCE_S + SLACK_S
            samples = [replica.receive(limit_s) for replica in replicas]
        except ResightError:
            self._stop(point.hardware)
            raise
        images, windows_s, cpus_s, latencies_ms, unanswered = zip(*samples, strict=True)
        rate = sum(i / s for i, s in zip(images, windows_s, strict=True))
        return Round(
            closed_s=round(sum(images) / rate, 4),
            closed_images=sum(images),
            cpu_s=round(sum(cpus_s), 4),
            offered_per_s=round(self._plan.setup.load_share * rate, 3),
            latencies_ms=tuple(itertools.chain(*latencies_ms)),
            unanswered=sum(unanswered),
        )

    def close(self) -> None:
        for hardware in list(self._running):
            self._stop(hardware)

    def _replicas(self, hardware: Hardware) -> list[ReplicaProcess]:
        if hardware not in self._running:
            for other in set(self._running) - {self._kept}:
                self._stop(other)
            started = self._running[hardware] = list[ReplicaProcess]()
            started += (ReplicaProcess(self._plan, hardware, index) for index in range(hardware.replicas))
            for replica in started:
                replica.loaded = replica.receive(self._plan.args.load_timeout_s)
        return self._running[hardware]

    def _stop(self, hardware: Hardware) -> None:
        for replica in self._running.pop(hardware, ()):
            replica.stop()


class ReplicaProcess:
    """A child process that loads the version as a replica does. Raises ModelNotReady if it cannot start."""

    loaded: tuple[Batch, str]  # the batch that replicas use now, and the device

    def __init__(self, plan: TuningPlan, hardware: Hardware, index: int) -> None:
        self._model, context = plan.setup.model, multiprocessing.get_context("spawn")
        args = plan.args.model_copy(update=hardware._asdict())
        try:
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_main, args=(theirs, plan, args, index), daemon=True)
            with theirs:
                self._process.start()
        except OSError as error:
            raise ModelNotReady(f"cannot start a process for {self._model}: {error}") from error

    def send(self, point: Point) -> None:
        with contextlib.suppress(OSError):  # receive() raises the reason
            self._pipe.send(point)

    def receive(self, limit_s: float) -> Any:
        """Return `loaded`, then results by point. Raises the error of the process, or ModelNotReady if it is late."""
        try:
            if not self._pipe.poll(limit_s):
                raise ModelNotReady(f"{self._model} did not answer within {limit_s:.0f} s")
            answer = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(10)
            raise ModelNotReady(f"the process of {self._model} ended with code {self._process.exitcode}") from error
        if isinstance(answer, ResightError):
            raise answer
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.join(10)
        self._pipe.close()


def _main(pipe: Connection, plan: TuningPlan, args: DetectArgs, index: int) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # the engine's log
        os.dup2(nowhere.fileno(), 2)
    configure_logs()
    asyncio.run(_serve(pipe, plan, args, index))


async def _serve(pipe: Connection, plan: TuningPlan, args: DetectArgs, index: int) -> None:
    """Measure points until the first error, which is sent."""
    engine, version, random = Engine(args), plan.version.id, np.random.default_rng(index)
    seconds, share = plan.setup.seconds, plan.setup.load_share  # the second loop has this share of the throughput
    photos = itertools.cycle(plan.photos)

    async def detect() -> None:
        with engine.admission.images.place():
            await engine.detect(next(photos), str(version))

    try:
        loaded = (await engine.resolver.get(str(version))).detector
        pipe.send((loaded.batch, loaded.session.device))
        gc.freeze()  # as a replica does
        while True:
            point: Point = await asyncio.to_thread(pipe.recv)
            engine.models.exchange(version, set_point(loaded, point))
            clients, closed_s = clients_for(point, args.limits.online_queue), CLOSED_SHARE * seconds
            images, window_s, cpu_s = await closed_loop(detect, clients, closed_s)
            await asyncio.sleep(SETTLE_S)
            opened = await open_loop(detect, share * images / window_s, seconds - closed_s, random)
            await asyncio.sleep(SETTLE_S)
            pipe.send((images, window_s, cpu_s, *opened))
    except* Exception as errors:
        error = errors.exceptions[0]
        pipe.send(error if isinstance(error, ResightError) else ModelNotReady(repr(error)))


def set_point(loaded: LoadedDetector, point: Point) -> LoadedDetector:
    """Return the same model with the batch, wait and jpeg_shrink of a point."""
    preprocess = loaded.config.preprocess.model_copy(update={"jpeg_shrink": point.jpeg_shrink})
    config = loaded.config.model_copy(update={"preprocess": preprocess})
    return replace(loaded, config=config, batch=Batch(max=point.batch, wait_ms=point.wait_ms))


def clients_for(point: Point, online_queue: int) -> int:
    """Return how many clients fill the next batch of each worker, within the queue's bound."""
    return min(online_queue, 2 * point.batch * point.workers + point.workers)


async def closed_loop(detect: Detect, clients: int, seconds: float) -> tuple[int, float, float]:
    """Let clients send the next picture as soon as one is answered; a slow model gets more time.

    Return the images, seconds and CPU seconds from the first answer after the warm-up to the first one after the end:
    a window of whole batches. Raises what `detect` raises in an ExceptionGroup, and BadRequest if no image is answered.
    """
    answered, answer = 0, asyncio.Event()

    async def client() -> None:
        nonlocal answered
        while True:
            await detect()
            answered += 1
            answer.set()

    async def next_answer(after_s: float) -> NDArray[np.float64]:
        await asyncio.sleep(after_s)
        answer.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(answer.wait(), PATIENCE_S)
        return np.array([answered, time.perf_counter(), time.process_time()])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client()) for _ in range(clients)]
        began = await next_answer(WARM_SHARE * seconds)
        images, window_s, cpu_s = (await next_answer((1 - WARM_SHARE) * seconds) - began).tolist()
        for task in tasks:
            task.cancel()
    if not images:
        raise BadRequest(f"no image was answered within {window_s:.1f} s: use longer --seconds")
    return int(images), window_s, cpu_s


async def open_loop(
    detect: Detect, rate: float, seconds: float, random: np.random.Generator
) -> tuple[list[float], int]:
    """Send pictures at Poisson arrivals of `rate` per s, however slow the answers are.

    Return latencies in ms from when each request was due, so that a stall counts fully, and the number of requests
    that were rejected by the queue or not answered in time.
    """
    latencies_ms: list[float] = []

    async def send(due: float) -> None:
        with contextlib.suppress(Overloaded):
            await detect()
            latencies_ms.append(round((time.perf_counter() - due) * 1e3, 2))

    arrivals = np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))
    began = time.perf_counter()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds + PATIENCE_S), asyncio.TaskGroup() as group:
            for due in (began + arrivals).tolist():
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(send(due))
    return latencies_ms, len(arrivals) - len(latencies_ms)
