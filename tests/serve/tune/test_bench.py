"""Replica processes, for real: the engine of the product with a model that loads in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from model_store.config import Batch
from model_store.errors import ImageError, ModelNotFound, ModelNotReady
from model_store.loaded import load_detector
from model_store.names import version_id
from model_store.store import ModelStore
from serve.settings import DetectArgs
from serve.tune.bench import Bench, clients_for
from serve.tune.point import Point
from serve.tune.replica import Replica, as_at
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
