"""Who decodes an image of a request: the worker that infers it, or, where workers fill batches, a decoder."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.config import Batch
from model_store.detector import LoadedDetector
from model_store.errors import DeadlinePassed, ImageError, ImageUnreadable
from model_store.images.decode import ImageFacts
from model_store.transform.preprocess import Prepared
from serve.inference.batcher import Lane
from serve.inference.engine import Engine
from serve.inference.workers import PendingImage, make_items
from serve.settings import DetectArgs
from tests.fixtures_local import model_info, motion_store, photo
from tests.serve.inference.test_engine import Gate

FACTS = ImageFacts(4, 2, None, "image/jpeg")
PREPARED = Prepared(np.zeros((1, 8, 8, 3), np.uint8), (), (4, 2))


def counting(times: list[str]) -> Callable[[], tuple[ImageFacts, Prepared]]:
    def read() -> tuple[ImageFacts, Prepared]:
        times.append(threading.current_thread().name)
        return FACTS, PREPARED

    return read


async def filling(engine: Engine, batch: int) -> None:
    """blobs@1, loaded, with batches of so many."""
    model = (await engine.resolver.get("blobs@1")).model
    exchanged = replace(model, batch=Batch(max=batch))
    engine.models.exchange(model.info.id, exchanged)


def test_a_picture_is_decoded_once_and_weighs_what_it_holds() -> None:
    times: list[str] = []
    picture = PendingImage(counting(times), 1000)
    assert (picture.nbytes, picture.preprocess_ms, times) == (1000, 0.0, [])
    assert picture.prepared() is PREPARED
    assert picture.facts is FACTS
    assert picture.prepared() is PREPARED
    assert len(times) == 1
    assert picture.nbytes == 1000 + 8 * 8 * 3
    assert picture.preprocess_ms > 0


def test_a_picture_is_neither_decoded_nor_inferred_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[str] = []
    now = [10.0]
    monkeypatch.setattr("serve.inference.workers.time.perf_counter", lambda: now[0])
    with pytest.raises(DeadlinePassed, match="before the image was decoded"):
        PendingImage(counting(times), 1, deadline_s=9.0).prepared()
    assert times == []

    def slow() -> tuple[ImageFacts, Prepared]:
        now[0] += 5
        return FACTS, PREPARED

    with pytest.raises(DeadlinePassed, match="before the image was inferred"):
        PendingImage(slow, 1, deadline_s=12.0).prepared()
    assert PendingImage(slow, 1, deadline_s=99.0).prepared() is PREPARED


@pytest.mark.parametrize(
    ("hardware", "batch", "decoded_by"),
    [
        ({"workers": 1, "replicas": 2}, 1, "online-"),
        ({"workers": 1}, 1, "decode"),  # a core is left
        ({"workers": 2}, 4, "decode"),
        ({"workers": 2, "num_gpus": 1.0}, 1, "decode"),
    ],
)
async def test_workers_decode_where_all_cores_infer_one_image_at_a_time_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hardware: dict[str, float], batch: int, decoded_by: str
) -> None:
    motion_store(tmp_path, "1")
    monkeypatch.setattr("serve.inference.workers.usable_cores", lambda: 2)
    threads: list[str] = []
    read = LoadedDetector.read

    def seen(self: LoadedDetector, *words: object) -> tuple[ImageFacts, Prepared]:
        threads.append(threading.current_thread().name)
        return read(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(LoadedDetector, "read", seen)
    engine = Engine(DetectArgs.model_validate({"models": str(tmp_path), **hardware}))
    try:
        await filling(engine, batch)
        threads.clear()  # its probe was read, too
        answer = await engine.detect(photo("cat"), "blobs@1")
    finally:
        engine.stop()
    assert answer.timings.preprocess_ms > 0
    assert answer.waited_first == (decoded_by == "online-")
    assert [name.startswith(decoded_by) for name in threads] == [True], threads


@pytest.mark.parametrize("batch", [1, 4])
async def test_an_image_that_cannot_be_decoded_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Also in a batch: its size grew while the images waited, undecoded."""
    motion_store(tmp_path, "1")
    monkeypatch.setattr("serve.inference.workers.usable_cores", lambda: 1)
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    bodies = [photo("cat"), b"\xff\xd8 no more of it", photo("moose"), b"nothing"]
    gate = threading.Event()
    nothing = np.zeros(0, np.float32)
    try:
        await filling(engine, 1)
        engine.batcher.submit(*make_items(Gate(gate), [nothing]), Lane.ONLINE)  # type: ignore[arg-type]
        while engine.batcher.depth(Lane.ONLINE):  # until the one worker is busy with the gate
            await asyncio.sleep(0.01)
        asked = [asyncio.create_task(engine.detect(body, "blobs@1")) for body in bodies[:-1]]
        while engine.batcher.depth(Lane.ONLINE) < len(asked):
            await asyncio.sleep(0.01)
        await filling(engine, batch)
        if batch == 1:
            asked.append(asyncio.create_task(engine.detect(bodies[-1], "blobs@1")))
        else:  # whose size says how the batch is filled
            model = (await engine.resolver.get("blobs@1")).detector
            picture = PendingImage(lambda: model.read(bodies[-1]), 1)
            (last,) = engine.batcher.submit(*make_items(model, [picture]), Lane.ONLINE)
            asked.append(asyncio.ensure_future(asyncio.wrap_future(last)))  # type: ignore[arg-type]
        gate.set()
        said = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        gate.set()
        engine.stop()
    assert [isinstance(one, ImageError) for one in said] == [False, True, False, True]
    assert not isinstance(said[0], BaseException)
    assert said[0].image.width_px > 0


def test_images_of_a_version_whose_files_were_replaced_share_no_batch_with_those_of_the_old_files() -> None:
    old, new = Gate(threading.Event()), Gate(threading.Event())
    new.info = model_info(key="another")
    keys = {make_items(model, [], raw)[0] for model in (old, new, old) for raw in (False, True)}  # type: ignore[arg-type]
    assert len(keys) == 4


async def test_an_image_that_failed_is_held_by_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not until a collection either: those count objects, and an image of 300 MB is one."""
    motion_store(tmp_path, "1")
    monkeypatch.setattr("serve.inference.workers.usable_cores", lambda: 1)
    held: list[weakref.ref[NDArray[np.uint8]]] = []

    def read(*_: object) -> tuple[ImageFacts, Prepared]:
        image = np.zeros((64, 64, 3), np.uint8)
        held.append(weakref.ref(image))
        raise ImageUnreadable(f"too many tiles of {image.shape}")

    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    try:
        await filling(engine, 1)
        monkeypatch.setattr(LoadedDetector, "read", read)
        gc.collect()
        gc.disable()
        with contextlib.suppress(ImageUnreadable):
            await engine.detect(b"whatever", "blobs@1")
        async with asyncio.timeout(10):
            while held[0]() is not None:  # the worker lets go of it a moment later
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
        engine.stop()
