"""The engine's two lanes: the same bytes give the same rows, by HTTP and by chunk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask
from structlog.testing import capture_logs

from model_store.adding.add import add_version
from model_store.config import Batch
from model_store.detections import Detections, RunLengths
from model_store.detector import DetectorOutput
from model_store.errors import BadRequest, ModelNotFound
from model_store.images.decode import decode
from model_store.names import version_id
from model_store.store import ModelStore
from serve.api.answers import to_response
from serve.inference.batcher import Lane
from serve.inference.chunks import Chunk
from serve.inference.engine import Engine, sample_of
from serve.inference.workers import make_items
from serve.settings import DetectArgs
from tests.fixtures_local import MODELS, model_info, motion_store, photo
from tests.graphs import constant_graph
from tests.model_store.test_detections import rows_of
from tests.oracles.tensors import example

NAMES = ("cat", "moose", "person")


async def chunk_of(engine: Engine, model: str, names: tuple[str, ...]) -> Chunk:
    detector = (await engine.resolver.get(model)).detector
    prepared = [detector.prepare(decode(photo(name)).pixels) for name in names]
    return Chunk.of(model, prepared)


async def test_a_long_reference_is_cut_in_the_log_and_in_the_problem() -> None:
    ref = "X" * 100_000
    engine = Engine(DetectArgs(models=str(MODELS), workers=1))
    try:
        with capture_logs() as lines, pytest.raises(BadRequest) as raised:
            await engine.detect(photo("cat"), ref)
    finally:
        engine.stop()
    assert [line["model"] for line in lines if line["event"] == "not_detected"] == [ref[:100]]
    assert ref[:100] in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "image",
    [
        lambda number: photo("cat") + b"%d\n" % number,
        lambda number: b"%d\n" % number + photo("cat") + bytes(4096),
        lambda number: photo("cat") + bytes(4096 + number),
    ],
    ids=["at the end", "padded", "in the size"],
)
def test_images_that_differ_by_a_number_are_spread_evenly(image: Callable[[int], bytes]) -> None:
    """A fifth of them is sampled within four standard deviations; a cyclic checksum gives 31 %."""
    numbers = range(1, 301)
    chosen = sum(sample_of(image(number)) < 0.2 for number in numbers)
    deviation = (len(numbers) * 0.2 * 0.8) ** 0.5
    assert abs(chosen - 0.2 * len(numbers)) < 4 * deviation


@pytest.mark.parametrize("model", ["motion@1", "ssdlite-coco@1"])
async def test_both_lanes_give_the_same_rows_bit_for_bit(model: str) -> None:
    engine = Engine(DetectArgs(models=str(MODELS), workers=2))
    try:
        answer = await engine.detect_chunk(await chunk_of(engine, model, NAMES))
        online = [await engine.detect(photo(name), model) for name in NAMES]
    finally:
        engine.stop()
    assert answer.errors == (None,) * len(NAMES)
    assert str(answer.model.id) == model
    for one, two in zip(answer.detections(), online, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, two.detections.boxes_xyxy)
        np.testing.assert_array_equal(one.scores, two.detections.scores)
        np.testing.assert_array_equal(one.class_ids, two.detections.class_ids)


@pytest.fixture(scope="module")
def odd_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Models whose pictures are several squares each, and with masks."""
    store = ModelStore(str(tmp_path_factory.mktemp("odd")))
    tiled = {"preprocess": {"side_px": 300, "resize": "stretch", "tiling": {"tile_px": 400}}}
    weights = (MODELS / "ssdlite-coco" / "1" / "model.onnx").read_bytes()
    add_version(store, version_id("tiled", "1"), weights, {**tiled, "score_floor": 0.05}, {})
    outputs = example("yolov8_seg", np.random.default_rng(2), 3, 1, 64)
    seg = constant_graph(outputs, 64, {"names": "['deer']", "task": "segment"})
    add_version(store, version_id("seg", "1"), seg, {}, {})
    return store.url


@pytest.mark.parametrize("model", ["tiled@1", "seg@1"])
async def test_odd_models_too_give_the_same_rows_on_both_lanes(odd_store: str, model: str) -> None:
    engine = Engine(DetectArgs(models=odd_store, workers=2))
    try:
        answer = await engine.detect_chunk(await chunk_of(engine, model, NAMES[:2]))
        online = [await engine.detect(photo(name), model) for name in NAMES[:2]]
    finally:
        engine.stop()
    assert answer.errors == (None, None)
    for one, two in zip(answer.detections(), online, strict=True):
        assert len(one) > 0
        assert rows_of(one) == rows_of(two.detections)
        if model == "seg@1":
            assert isinstance(one.masks, RunLengths)
            assert isinstance(two.detections.masks, RunLengths)
            assert one.masks.counts == two.detections.masks.counts
            wire = to_response(two, 0.0)
            first = wire.detections[0].mask
            assert first is not None
            assert first.size == (two.image.height_px, two.image.width_px)
            inside = mask.decode({"size": first.size, "counts": first.counts.encode()})
            assert inside.sum() == first.area_px > 0


@pytest.mark.parametrize(("model", "error"), [("", BadRequest), ("blobs@9", ModelNotFound)])
async def test_a_chunk_for_a_model_that_is_not_there_is_refused_whole(
    tmp_path: Path, model: str, error: type[Exception]
) -> None:
    motion_store(tmp_path, "1")
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    try:
        chunk = await chunk_of(engine, "blobs@1", ("cat",))
        with pytest.raises(error):
            await engine.detect_chunk(replace(chunk, model=model))
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


async def test_batches_follow_the_deployment_file_without_a_reload_of_the_model(tmp_path: Path) -> None:
    store = motion_store(tmp_path, "1")
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    try:
        await engine.resolver.get("blobs@1")
        version = version_id("blobs", "1")
        session = engine.models.model(version).session
        store.folder.write("blobs/deployment.json", b'{"*": {"batch": {"max": 7, "wait_ms": 2}}}')
        await engine.aliases.retune()
        tuned = engine.models.model(version)
        assert (tuned.batch.max, tuned.batch.wait_ms, tuned.session) == (7, 2, session)
        store.folder.write("blobs/deployment.json", b"{")
        await engine.aliases.retune()
        assert engine.models.model(version).batch.max == 7, "a damaged file changes nothing"
    finally:
        engine.stop()


async def test_a_version_released_meanwhile_still_answers_what_it_was_asked(tmp_path: Path) -> None:
    motion_store(tmp_path, "1")
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    gate = threading.Event()
    nothing = np.zeros(0, np.float32)
    hold = engine.batcher.submit(*make_items(Gate(gate), [nothing]), Lane.ONLINE)  # type: ignore[arg-type]
    try:
        while engine.batcher.depth(Lane.ONLINE):  # until the one worker is busy with the gate
            await asyncio.sleep(0.01)
        asking = asyncio.create_task(engine.detect(photo("cat"), "blobs@1"))
        while not engine.batcher.depth(Lane.ONLINE):
            await asyncio.sleep(0.01)
        assert await engine.aliases.release(version_id("blobs", "1"))
        gate.set()
        assert str((await asking).model.id) == "blobs@1"
        assert hold[0].result()[0]
    finally:
        gate.set()
        engine.stop()


class Gate:
    """A detector that holds the worker until it is let go."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.info = model_info()
        self.lane_batch = Batch(max=1)

    def infer(self, items: object) -> DetectorOutput:
        assert self.gate.wait(20)
        return DetectorOutput([Detections.empty()], 0.0, 0.0)
