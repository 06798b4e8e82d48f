"""Replica processes with a model that loads in milliseconds, and load on functions that answer by a rule."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from model_store.config import Batch
from model_store.errors import BadRequest, ImageError, ImageUnreadable, ModelNotReady, Overloaded, ResightError
from model_store.load import load_detector
from model_store.names import version_id
from model_store.store import ModelStore
from serve.settings import DetectArgs
from serve.tune import bench as benches
from serve.tune.bench import Bench, ReplicaProcess, clients_for, closed_loop, open_loop, set_point
from serve.tune.plan import TuningPlan
from serve.tune.results import Hardware, Point, Round
from tests.fixtures_local import MODELS, motion_store, photo
from tests.serve.tune.performance import NOW, at, plan

BLOBS = version_id("blobs", "1")
SAMPLE = (10, 1.0, 1.0, [5.0] * 10, 0)


def blobs(folder: Path, *photos: bytes, **args: Any) -> TuningPlan:
    store = motion_store(folder, "1")
    own = DetectArgs(models=str(folder), threads=1, workers=2).model_copy(update=args)
    facts = {"model": "blobs@1", "seconds": 0.3, "load_share": 0.5}
    photos = photos or (photo("cat"), photo("panda"))
    return plan(version=store.describe(BLOBS), args=own, photos=photos, **facts)


def children() -> int:
    return len(multiprocessing.active_children())


def test_a_point_is_measured_in_processes_that_end(tmp_path: Path) -> None:
    plan = blobs(tmp_path)
    ModelStore(str(tmp_path)).folder.write("blobs/deployment.json", b'{"1": {"batch": {"max": 5, "wait_ms": 3}}}')
    before = children()
    with closing(Bench(plan)) as bench:
        assert bench.current() == (Batch(max=5, wait_ms=3), "cpu"), "the current settings"
        assert children() == before + 1
        one = bench.measure(NOW)
        two = bench.measure(at(replicas=2, workers=1))
        assert children() == before + 3, "the current settings' process stays"
        bench.measure(at(workers=1))
        assert children() == before + 2
    assert children() == before
    for found in (one, two):
        assert found.closed_images > 0
        assert found.closed_s > 0
        assert found.cpu_s > 0
        assert all(latency_ms > 0 for latency_ms in found.latencies_ms), "a busy machine may offer none"
    assert one.offered_per_s == pytest.approx(0.5 * one.images_per_s, rel=0.01)


class FakeReplica:
    """A replica without a process. `script` has the next samples or errors of all replicas."""

    script: ClassVar[list[tuple[Any, ...] | ResightError]] = []
    events: ClassVar[list[str]] = []

    def __init__(self, *_: object) -> None:
        self.name = f"{sum(e.startswith('start') for e in self.events)}"
        self.events.append(f"start {self.name}")
        self.loading = True

    def send(self, point: Point) -> None:
        self.events.append(f"send {self.name}")

    def receive(self, limit_s: float) -> Any:
        if self.loading:
            self.loading = False
            return Batch(max=1), "cpu"
        answer = self.script.pop(0) if self.script else SAMPLE
        if isinstance(answer, ResightError):
            raise answer
        return answer

    def stop(self) -> None:
        self.events.append(f"stop {self.name}")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> type[FakeReplica]:
    monkeypatch.setattr(FakeReplica, "script", [])
    monkeypatch.setattr(FakeReplica, "events", [])
    monkeypatch.setattr("serve.tune.bench.ReplicaProcess", FakeReplica)
    return FakeReplica


def test_after_an_error_a_point_has_new_processes(fakes: type[FakeReplica]) -> None:
    point = at(replicas=2, workers=1)
    with closing(Bench(plan())) as bench:
        fakes.script.append(ModelNotReady("did not answer within 65 s"))
        with pytest.raises(ModelNotReady, match="65 s"):
            bench.measure(point)
        assert {"stop 0", "stop 1"} <= set(fakes.events), "their answers may still come"
        assert bench.measure(point).closed_images == 20
        assert fakes.events[-2:] == ["send 2", "send 3"]


def test_rounds_of_several_replicas_are_added(fakes: type[FakeReplica]) -> None:
    with closing(Bench(plan())) as bench:
        fakes.script[:] = [SAMPLE, (20, 2.0, 3.0, [7.0], 4)]
        found = bench.measure(at(replicas=2, workers=1))
    assert found == Round(
        closed_s=1.5, closed_images=30, cpu_s=4.0, offered_per_s=14.0, latencies_ms=(*[5.0] * 10, 7.0), unanswered=4
    )
    assert found.images_per_s == 10 / 1.0 + 20 / 2.0


def test_a_process_that_cannot_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=full)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    with pytest.raises(ModelNotReady, match="cannot start.*temporarily unavailable"):
        ReplicaProcess(plan(), NOW.hardware, 0)


def test_a_pool_with_gpus_needs_one(tmp_path: Path) -> None:
    before = children()
    with (
        closing(Bench(blobs(tmp_path, num_gpus=1.0))) as bench,
        pytest.raises(ModelNotReady, match="finds no GPU here"),
    ):
        bench.current()
    assert children() == before


def test_errors_of_the_process_are_raised_here(tmp_path: Path) -> None:
    with closing(Bench(blobs(tmp_path, b"no picture"))) as bench, pytest.raises(ImageError):
        bench.measure(NOW)


def test_a_killed_process_is_an_error_with_its_signal(tmp_path: Path) -> None:
    own = blobs(tmp_path)
    replica = ReplicaProcess(own, Hardware.of(own.args), 0)
    try:
        replica.receive(60)
        replica._process.kill()
        replica.send(NOW)
        with pytest.raises(ModelNotReady, match=r"blobs@1 ended with code -9"):
            replica.receive(60)
    finally:
        replica.stop()


@pytest.mark.parametrize(("point", "clients"), [(at(batch=4), 18), (at(batch=16), 64)])
def test_clients_fill_the_next_batch_within_the_queue_s_bound(point: Point, clients: int) -> None:
    assert clients_for(point, 64) == clients


def test_a_point_changes_how_a_model_runs_and_not_its_rows() -> None:
    loaded = load_detector(ModelStore(str(MODELS)), version_id("ssdlite-coco", "1"))
    run = set_point(loaded, at(batch=4, wait_ms=2.0))
    assert run.batch == Batch(max=4, wait_ms=2.0)
    assert replace(run, batch=loaded.batch) == loaded
    shrunk = set_point(loaded, at(jpeg_shrink=2))
    assert shrunk.config.preprocess.jpeg_shrink == 2
    assert loaded.config.preprocess.jpeg_shrink == 1


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop whose clock goes to the next timer instead of waiting for it."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now_s = max(self.now_s, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


@pytest.mark.parametrize("batch_s", [0.03, 0.36, 0.9, 2.5])
def test_throughput_is_that_of_whole_batches(monkeypatch: pytest.MonkeyPatch, batch_s: float) -> None:
    loop, waiting = VirtualTime(), list[asyncio.Future[None]]()
    monkeypatch.setattr(benches, "time", SimpleNamespace(perf_counter=loop.time, process_time=loop.time))

    async def batches_of_four() -> None:
        while True:
            await asyncio.sleep(batch_s)
            for answer in [waiting.pop(0) for _ in range(4)]:
                answer.set_result(None)

    async def detect() -> None:
        waiting.append(loop.create_future())
        await waiting[-1]

    async def measured() -> tuple[int, float, float]:
        worker = loop.create_task(batches_of_four())
        try:
            return await closed_loop(detect, 9, 2.0)
        finally:
            worker.cancel()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        images, window_s, cpu_s = runner.run(measured())
    assert images / window_s == pytest.approx(4 / batch_s)
    assert cpu_s == pytest.approx(window_s)


async def test_a_window_without_an_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "PATIENCE_S", 0.05)

    async def detect() -> None:
        await asyncio.sleep(60)

    with pytest.raises(BadRequest, match="--seconds"):
        await closed_loop(detect, 2, 0.05)


async def test_an_error_of_a_request_ends_the_loop() -> None:
    async def detect() -> None:
        raise ImageUnreadable("cut")

    for loop in (closed_loop(detect, 2, 30), open_loop(detect, 200, 0.1, random())):
        with pytest.raises(ExceptionGroup) as raised:
            await loop
        assert "cut" in str(raised.value.exceptions[0])


async def test_arrivals_do_not_wait_for_answers_and_a_stall_counts() -> None:
    free, arrivals, arrived = asyncio.Event(), random().poisson(200 * 0.3), 0

    async def detect() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == arrivals:
            free.set()
        await free.wait()

    latencies_ms, unanswered = await open_loop(detect, 200, 0.3, random())
    assert len(latencies_ms) == arrivals > 10, "they arrived while the first was waiting"
    assert max(latencies_ms) > 200
    assert max(latencies_ms) - min(latencies_ms) > 100, "arrivals spread over 300 ms"
    assert unanswered == 0


async def test_rejected_and_late_requests_are_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "PATIENCE_S", 0.05)
    turn, answered = itertools.count(1), 0

    async def detect() -> None:
        nonlocal answered
        request = next(turn)
        if request % 3 == 0:
            raise Overloaded("full")
        if request % 3 == 1:
            await asyncio.sleep(60)
        answered += 1

    latencies_ms, unanswered = await open_loop(detect, 200, 0.2, random())
    assert len(latencies_ms) == answered
    assert unanswered == random().poisson(200 * 0.2) - answered, "also those that a busy machine sends too late"
