"""The engine's two lanes: the same bytes give the same rows, by HTTP and by chunk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from model_store.errors import BadRequest, ModelNotFound, Overloaded
from model_store.images import decode
from serve.chunks import Chunk
from serve.engine import Engine
from serve.settings import DetectArgs, Limits
from tests.fixtures_local import MODELS, motion_store, photo

NAMES = ("cat", "moose", "person")


async def chunk_of(engine: Engine, model: str, names: tuple[str, ...]) -> Chunk:
    detector = (await engine.residents.get(model)).detector
    prepared = [detector.prepare(decode(photo(name)).pixels) for name in names]
    side = detector.config.preprocess.side_px
    return Chunk(
        model,
        np.array([p.pixels for p in prepared], np.uint8).reshape(-1, side, side, 3),
        np.array([p.fit.to_row() for p in prepared]).reshape(-1, 6),
    )


@pytest.mark.parametrize("names", [(), ("cat",), NAMES])
@pytest.mark.parametrize("model", ["motion@1", "ssdlite-coco@1"])
async def test_both_lanes_give_the_same_rows_bit_for_bit(
    model: str, names: tuple[str, ...]
) -> None:
    engine = Engine(DetectArgs(models=str(MODELS), workers=2))
    try:
        answer = await engine.detect_chunk(await chunk_of(engine, model, names))
        online = [await engine.detect(photo(name), model) for name in names]
    finally:
        engine.stop()
    assert answer.errors == (None,) * len(names)
    assert str(answer.model.id) == model
    for one, two in zip(answer.detections(), online, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, two.detections.boxes_xyxy)
        np.testing.assert_array_equal(one.scores, two.detections.scores)
        np.testing.assert_array_equal(one.class_ids, two.detections.class_ids)


@pytest.mark.parametrize(
    ("model", "error"), [("", BadRequest), ("deer@1", ModelNotFound), ("blobs@9", ModelNotFound)]
)
async def test_a_chunk_for_a_model_that_is_not_there_is_refused_whole(
    tmp_path: Path, model: str, error: type[Exception]
) -> None:
    motion_store(tmp_path, "1")
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    try:
        chunk = await chunk_of(engine, "blobs@1", ("cat",))
        with pytest.raises(error):
            await engine.detect_chunk(Chunk(model, chunk.pixels, chunk.fits))
    finally:
        engine.stop()


async def test_a_chunk_over_the_bulk_bound_is_refused_whole(tmp_path: Path) -> None:
    motion_store(tmp_path, "1")
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1, limits=Limits(bulk_queue=2)))
    try:
        chunk = await chunk_of(engine, "blobs@1", NAMES)
        with pytest.raises(Overloaded, match="bulk lane"):
            await asyncio.gather(*(engine.detect_chunk(chunk) for _ in range(8)))
    finally:
        engine.stop()


async def test_a_started_engine_follows_the_alias_files_by_itself(tmp_path: Path) -> None:
    store = motion_store(tmp_path, "1", "2")
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1, poll_s=0.01))
    try:
        await engine.start()
        assert (await engine.detect(photo("cat"), "blobs")).model.version == "1"
        store.set_alias("blobs", "production", "2")
        async with asyncio.timeout(20):
            while (await engine.detect(photo("cat"), "blobs")).model.version != "2":
                await asyncio.sleep(0.01)
    finally:
        engine.stop()
