"""Who decodes an image of a request: the worker that infers it, or, where workers fill batches, a decoder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.config import Batch
from model_store.detector import LoadedDetector
from model_store.errors import DeadlinePassed, ImageError, ImageUnreadable
from model_store.images import ImageFacts
from model_store.preprocess import Prepared
from serve.engine import Engine
from serve.picture import Picture
from serve.settings import DetectArgs
from tests.fixtures_local import motion_store, photo

FACTS = ImageFacts(4, 2, None, "image/jpeg")
PREPARED = Prepared(np.zeros((1, 8, 8, 3), np.uint8), (), (4, 2))


def counting(times: list[str]) -> Callable[[], tuple[ImageFacts, Prepared]]:
    def read() -> tuple[ImageFacts, Prepared]:
        times.append(threading.current_thread().name)
        return FACTS, PREPARED

    return read


async def filling(engine: Engine, batch: int) -> None:
    """blobs@1, loaded, with batches of so many."""
    model = (await engine.residents.get("blobs@1")).model
    exchanged = replace(model, batch=Batch(max=batch))
    engine.residents.versions.exchange(model.info.id, exchanged)


def test_a_picture_is_decoded_once_and_weighs_what_it_holds() -> None:
    times: list[str] = []
    picture = Picture(counting(times), 1000)
    assert (picture.nbytes, picture.preprocess_ms, times) == (1000, 0.0, [])
    assert picture.prepared() is PREPARED
    assert picture.facts is FACTS
    assert picture.prepared() is PREPARED
    assert len(times) == 1
    assert picture.nbytes == 1000 + 8 * 8 * 3
    assert picture.preprocess_ms > 0


def test_what_cannot_be_decoded_raises_each_time() -> None:
    def read() -> tuple[ImageFacts, Prepared]:
        raise ImageUnreadable("no picture")

    picture = Picture(read, 10)
    for _ in range(2):
        with pytest.raises(ImageUnreadable, match="no picture"):
            picture.prepared()
    assert picture.nbytes == 10


@pytest.mark.parametrize(
    ("hardware", "batch", "decoded_by"),
    [
        ({"threads": 1}, 1, "online-"),
        ({"threads": 1}, 4, "decode_"),
        ({"threads": 2}, 1, "decode_"),
        ({"num_gpus": 1.0}, 1, "decode_"),
    ],
)
async def test_a_worker_decodes_where_it_has_a_core_and_takes_one_image_at_a_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hardware: dict[str, float],
    batch: int,
    decoded_by: str,
) -> None:
    motion_store(tmp_path, "1")
    threads: list[str] = []
    read = LoadedDetector.read

    def seen(self: LoadedDetector, *words: object) -> tuple[ImageFacts, Prepared]:
        threads.append(threading.current_thread().name)
        return read(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(LoadedDetector, "read", seen)
    engine = Engine(DetectArgs.model_validate({"models": str(tmp_path), "workers": 1, **hardware}))
    try:
        await filling(engine, batch)
        threads.clear()  # its probe was read, too
        answer = await engine.detect(photo("cat"), "blobs@1")
    finally:
        engine.stop()
    assert answer.timings.preprocess_ms > 0
    assert [name.startswith(decoded_by) for name in threads] == [True], threads


@pytest.mark.parametrize("batch", [1, 4])
async def test_an_image_that_cannot_be_decoded_fails_alone(tmp_path: Path, batch: int) -> None:
    motion_store(tmp_path, "1")
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    bodies = [photo("cat"), b"\xff\xd8 no more of it", photo("moose"), b"nothing"]
    try:
        await filling(engine, batch)
        asked = [engine.detect(body, "blobs@1") for body in bodies]
        said = await asyncio.gather(*asked, return_exceptions=True)
        with pytest.raises(DeadlinePassed):
            await engine.detect(photo("cat"), "blobs@1", deadline_s=0.0)
    finally:
        engine.stop()
    assert [isinstance(one, ImageError) for one in said] == [False, True, False, True]
    assert not isinstance(said[0], BaseException)
    assert said[0].image.width_px > 0
