"""Replica processes, for real: the engine of the product with a model that loads in milliseconds."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import psutil
import pytest

from model_store.config import Batch
from model_store.errors import ImageError, ModelNotFound, ModelNotReady, ResightError
from model_store.loaded import load_detector
from model_store.names import version_id
from model_store.store import ModelStore
from serve.settings import DetectArgs
from serve.tune.bench import Bench, clients_for
from serve.tune.facts import Round
from serve.tune.load import Seen
from serve.tune.point import Point, Wanted
from serve.tune.replica import Ready, Replica, as_at
from serve.tune.sweep import Sweep
from tests.fixtures_local import MODELS, motion_store, photo
from tests.serve.tune.performance import NOW, at

BLOBS = version_id("blobs", "1")


def args(folder: Path, **fields: object) -> DetectArgs:
    return DetectArgs(models=str(folder), threads=1, workers=2).model_copy(update=fields)


def below() -> int:
    """Processes of this one that are still there."""
    return len([p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())])


def test_a_point_is_measured_by_the_engine_in_processes_that_end(tmp_path: Path) -> None:
    store = motion_store(tmp_path, "1")
    store.folder.write("blobs/deployment.json", b'{"1": {"batch": {"max": 5, "wait_ms": 3}}}')
    before = below()
    with Bench(BLOBS, args(tmp_path), [photo("cat"), photo("panda")], 0.6, 0.5) as bench:
        assert bench.current() == (Batch(max=5, wait_ms=3), "cpu"), "what replicas use now"
        assert below() == before + 1
        one = bench.measure(NOW)
        two = bench.measure(at(replicas=2, workers=1))
        assert below() == before + 3, "those of the current settings stay"
        bench.measure(at(workers=1))
        assert below() == before + 2
    assert below() == before
    for found in (one, two):
        assert found.closed_images > 0
        assert 0 < found.closed_s < 0.6
        assert found.cpu_s > 0
        assert found.offered_per_s == pytest.approx(0.5 * found.images_per_s, rel=0.01)
        assert found.latencies_ms


class Fake:
    """A replica in no process; the next answers of all of them are in `script`."""

    script: ClassVar[list[Seen | ResightError]] = []
    events: ClassVar[list[str]] = []

    def __init__(self, *_: object) -> None:
        self.name = f"{sum(e.startswith('start') for e in self.events)}"
        self.events.append(f"start {self.name}")

    def ready(self) -> Ready:
        return Ready(Batch(max=1), "cpu")

    def ask(self, load: object) -> None:
        self.events.append(f"ask {self.name}")

    def answer(self) -> Seen:
        found = self.script.pop(0) if self.script else Seen(1.0, (5.0,) * 10, 0, 1.0)
        if isinstance(found, ResightError):
            raise found
        return found

    def stop(self) -> None:
        self.events.append(f"stop {self.name}")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setattr(Fake, "script", [])
    monkeypatch.setattr(Fake, "events", [])
    monkeypatch.setattr("serve.tune.bench.Replica", Fake)
    return Fake


@pytest.mark.parametrize("point", [NOW, at(batch=4), at(workers=1)])
@pytest.mark.parametrize("round_trips", [0, 1])
def test_after_an_error_the_next_point_has_a_process_of_its_own(
    fakes: type[Fake], tmp_path: Path, point: Point, round_trips: int
) -> None:
    with Bench(BLOBS, args(tmp_path), [b"x"], 1, 0.5) as bench:
        fakes.script[:] = [Seen(1.0, (5.0,), 0, 1.0)] * round_trips
        fakes.script.append(ModelNotReady("did not answer in 65 s"))
        with pytest.raises(ModelNotReady, match="65 s"):
            bench.measure(point)
        assert "stop 0" in fakes.events, "its answer may still come"
        assert bench.measure(point).closed_images == 10
        assert fakes.events[-2:] == ["ask 1", "ask 1"]


def test_where_one_of_several_fails_all_of_them_end(fakes: type[Fake], tmp_path: Path) -> None:
    with Bench(BLOBS, args(tmp_path), [b"x"], 1, 0.5) as bench:
        fakes.script[:] = [ModelNotReady("it ended"), Seen(1.0, (5.0,), 0, 1.0)]
        with pytest.raises(ModelNotReady, match="it ended"):
            bench.measure(at(replicas=2, workers=1))
        assert {"stop 0", "stop 1"} <= set(fakes.events)


def test_the_sweep_goes_on_after_a_point_that_fails(fakes: type[Fake], tmp_path: Path) -> None:
    """Batches of 4 end the process; those after them are measured as if nothing had been."""
    with Bench(BLOBS, args(tmp_path), [b"x"], 1, 0.5) as bench:

        def measure(point: Point) -> Round:
            if point.batch == 4:
                fakes.script.append(ModelNotReady("all memory"))
            return bench.measure(point)

        found = Sweep(measure, NOW, 2, Wanted(batches=(1, 2, 4)), 100).run()
    failed = {one.point.batch for one in found.points if one.failed}
    assert failed == {4}
    assert all(one.images_per_s == 10 * one.point.replicas for one in found.points if one.rounds)
    started = {e.split()[1] for e in fakes.events if e.startswith("start")}
    assert started == {e.split()[1] for e in fakes.events if e.startswith("stop")}


def test_the_current_settings_are_all_replicas_of_the_pool(
    fakes: type[Fake], tmp_path: Path
) -> None:
    with Bench(BLOBS, args(tmp_path, replicas=3), [b"x"], 1, 0.5) as bench:
        bench.current()
        assert fakes.events == ["start 0", "start 1", "start 2"]
        bench.measure(at(replicas=3))
        bench.measure(at(workers=1))
        assert not [e for e in fakes.events if e.startswith("stop")], "they stay"


class Stillborn:
    """A process that ends before it has done anything."""

    exitcode = -9

    def __init__(self, log: Path) -> None:
        self._log = log

    def start(self) -> None:
        assert self._log.exists()

    def join(self, timeout: float) -> None:
        pass


def test_a_process_that_dies_at_once_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=lambda **_: Stillborn(log))
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    replica = Replica(BLOBS, args(tmp_path), [b"x"], log)
    with pytest.raises(ModelNotReady, match=r"blobs@1 ended \(-9\)"):
        replica.ready()


def test_a_process_that_cannot_be_started_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=full)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    with pytest.raises(ModelNotReady, match="could be started.*temporarily unavailable"):
        Replica(BLOBS, args(tmp_path), [b"x"], tmp_path / "log")


def test_a_pool_with_gpus_is_not_measured_without_one(tmp_path: Path) -> None:
    motion_store(tmp_path, "1")
    before = below()
    with (
        Bench(BLOBS, args(tmp_path, num_gpus=1.0), [photo("cat")], 0.5, 0.5) as bench,
        pytest.raises(ModelNotReady, match="finds no GPU here"),
    ):
        bench.current()
    assert below() == before


def test_what_goes_wrong_in_the_process_is_raised_here(tmp_path: Path) -> None:
    motion_store(tmp_path, "1")
    with (
        Bench(version_id("blobs", "7"), args(tmp_path), [photo("cat")], 0.5, 0.5) as bench,
        pytest.raises(ModelNotFound, match="blobs@7"),
    ):
        bench.current()
    with Bench(BLOBS, args(tmp_path), [b"no picture"], 0.5, 0.5) as bench:
        for _ in range(2):
            with pytest.raises(ImageError):
                bench.measure(NOW)


def test_a_process_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    motion_store(tmp_path, "1")
    replica = Replica(BLOBS, args(tmp_path), [photo("cat")], tmp_path / "log")
    try:
        replica.ready()
        newest = max(psutil.Process().children(), key=lambda child: child.create_time())
        newest.kill()
        with pytest.raises(ModelNotReady, match=r"blobs@1 ended \(-9\).*model_loaded"):
            replica.answer()
    finally:
        replica.stop()


@pytest.mark.parametrize(
    ("point", "found"),
    [(NOW, 6), (at(batch=4), 18), (at(batch=16), 64), (at(workers=1), 3)],
)
def test_clients_fill_the_next_batch_within_what_a_replica_admits(point: Point, found: int) -> None:
    assert clients_for(point, 64) == found


def test_a_point_changes_how_a_model_is_run_and_not_what_it_sees() -> None:
    loaded = load_detector(ModelStore(str(MODELS)), version_id("ssdlite-coco", "1"))
    run = as_at(loaded, at(batch=4, wait_ms=2.0))
    assert run.batch == Batch(max=4, wait_ms=2.0)
    assert replace(run, batch=loaded.batch) == loaded
    shrunk = as_at(loaded, at(jpeg_shrink=2))
    assert shrunk.config.preprocess.jpeg_shrink == 2
    assert loaded.config.preprocess.jpeg_shrink == 1
