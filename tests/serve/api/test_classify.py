"""Classifiers in a replica: the two lanes of the engine, /v1/classify, and the errors for the wrong kind of model."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pytest

from model_store.classifier import Classifier
from model_store.decoders.layout import OutputNonsense
from model_store.errors import BadRequest, ImageUnreadable, ModelNotReady
from model_store.images.decode import decode
from model_store.names import VersionId
from serve.inference.chunks import Chunk, CropsAnswer, pack_crops
from serve.inference.engine import Engine
from serve.inference.results import CropResult
from serve.settings import DetectArgs, Limits
from tests.fixtures_local import encoded, model_info, motion_store, photo
from tests.model_store.classifiers import LABELS, WEIGHT, colour_store
from tests.serve.http_client import client, problem_of

CAT, MOOSE = photo("cat"), photo("moose")
RED = encoded(np.full((30, 40, 3), (250, 10, 10), np.uint8), "PNG")
ONE = VersionId("colours", "1")


def half_and_half() -> bytes:
    """60 x 20 px: red on the left, blue on the right."""
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, :30, 0] = pixels[:, 30:, 2] = 255
    return encoded(pixels, "PNG")


@contextlib.contextmanager
def engine_at(place: Path) -> Iterator[Engine]:
    """`colours`, a classifier, versions 1 and 2, and `blobs`, a detector; both in production."""
    colour_store(place, "1", "2").set_alias("colours", "production", "1")
    motion_store(place, "1")
    engine = Engine(DetectArgs(models=str(place), workers=1, limits=Limits(body_mib=1)))
    asyncio.run(engine.aliases.refresh())
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine for all tests that leave it as it is."""
    with engine_at(tmp_path_factory.mktemp("classify")) as engine:
        yield engine


@pytest.fixture
def own_engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine that the test may change."""
    with engine_at(tmp_path) as engine:
        yield engine


async def classify(engine: Engine, body: Any, model: str = "colours", **query: Any) -> httpx2.Response:
    async with client(engine) as api:
        return await api.post("/v1/classify", content=body, params={"model": model, **query})


async def chunk_of(engine: Engine, model: str, *bodies: bytes) -> Chunk:
    classifier = (await engine.resolver.get(model)).crop_model(Classifier)
    return Chunk.of_inputs(model, np.stack([classifier.prepare(decode(b).pixels) for b in bodies]))


# --- engine


async def test_both_lanes_give_the_same_logits_bit_for_bit(engine: Engine) -> None:
    answer = await engine.crops_chunk(await chunk_of(engine, "colours@1", CAT, MOOSE, RED))
    assert (answer.model.id, answer.model.labels) == (ONE, LABELS)
    assert answer.errors == (None,) * 3
    assert (answer.values.shape, answer.values.dtype) == ((3, 4), np.float32)
    assert answer.queue_ms.shape == answer.inference_ms.shape == (3,)
    assert (answer.inference_ms > 0).all()
    online = [await engine.infer_crop(Classifier, body, "colours@1") for body in (CAT, MOOSE, RED)]
    for row, one in zip(answer.values, online, strict=True):
        np.testing.assert_array_equal(row, one.values)


async def test_a_crop_is_what_a_run_cuts_out(engine: Engine) -> None:
    box = (20.5, 31.0, 200.2, 177.9)
    classifier = (await engine.resolver.get("colours@1")).crop_model(Classifier)
    inputs = classifier.prepare(decode(CAT).pixels[31:178, 20:201])[None]
    answer = await engine.crops_chunk(Chunk.of_inputs("colours@1", inputs))
    online = await engine.infer_crop(Classifier, CAT, "colours@1", box)
    np.testing.assert_array_equal(answer.values[0], online.values)
    assert online.box_xyxy_px == box
    assert not np.array_equal(online.values, (await engine.infer_crop(Classifier, CAT, "colours@1")).values)


async def test_the_other_kind_is_refused_by_its_name(engine: Engine) -> None:
    crops = await chunk_of(engine, "colours@1", RED)
    for wrong in (engine.infer_crop(Classifier, RED, "blobs"), engine.crops_chunk(replace(crops, model="blobs@1"))):
        with pytest.raises(BadRequest, match="blobs@1 is a detector: use POST /v1/detect"):
            await wrong
    for wrong in (engine.detect(RED, "colours"), engine.detect_chunk(crops)):
        with pytest.raises(BadRequest, match="colours@1 is a classifier: use POST /v1/classify"):
            await wrong


@pytest.mark.parametrize("shape", [(2, 8, 8, 3)])
async def test_crops_of_another_size_are_refused(engine: Engine, shape: tuple[int, ...]) -> None:
    chunk = Chunk.of_inputs("colours@1", np.zeros(shape, np.uint8))
    with pytest.raises(BadRequest, match="16 x 16 px at a time"):
        await engine.crops_chunk(chunk)


async def test_a_bad_crop_fails_alone(own_engine: Engine) -> None:
    chunk = await chunk_of(own_engine, "colours@1", RED, CAT, MOOSE)
    alone = await own_engine.crops_chunk(await chunk_of(own_engine, "colours@1", RED, MOOSE))
    classifier = own_engine.models.model(ONE)
    assert isinstance(classifier, Classifier)
    cat = classifier.prepare(decode(CAT).pixels)
    own_engine.models.exchange(ONE, replace(classifier, session=Sour(classifier.session, cat)))
    answer = await own_engine.crops_chunk(chunk)
    assert answer.errors[0] is answer.errors[2] is None
    assert answer.errors[1] == "model: the network's output holds NaN or infinity"
    assert np.isnan(answer.values[1]).all()
    np.testing.assert_array_equal(answer.values[[0, 2]], alone.values)


class Sour:
    """A session that returns NaN for a batch with a certain picture."""

    device = "cpu"

    def __init__(self, session: Any, picture: np.ndarray) -> None:
        self._session = session
        self._mean = float(np.float32(picture[..., 0]).mean() / 255)

    def run(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        found = self._session.run(tensor)
        hit = np.isclose(tensor[:, 0].mean(axis=(1, 2)), self._mean, atol=1e-4)
        return {name: np.where(hit[:, None], np.nan, values) for name, values in found.items()}


async def test_what_was_answered_is_counted(own_engine: Engine) -> None:
    await own_engine.infer_crop(Classifier, RED, "colours")
    await own_engine.crops_chunk(await chunk_of(own_engine, "colours@1", RED, CAT))
    with pytest.raises(BadRequest):
        await own_engine.infer_crop(Classifier, RED, "blobs")
    text = own_engine.exposition()
    for line in (
        'resight_requests_total{model="colours",outcome="ok",version="1"} 1.0',
        'resight_requests_total{model="blobs",outcome="BadRequest",version="1"} 1.0',
        'resight_bulk_images_total{model="colours",version="1"} 2.0',
        'resight_stage_seconds_count{model="colours",stage="inference",version="1"} 1.0',
    ):
        assert line in text, line


# --- chunks


def test_outcomes_are_packed_in_order_with_their_reasons() -> None:
    model = SimpleNamespace(info=model_info(), width=2)
    results = [CropResult(np.array([i, -i], np.float32), 3.0) for i in (1, 2)]
    outcomes = [(results[0], 7.0), ImageUnreadable("cut"), OutputNonsense("odd"), (results[1], 8.0)]
    answer = pack_crops(model, outcomes)
    assert isinstance(answer, CropsAnswer)
    assert answer.values[[0, 3]].tolist() == [[1, -1], [2, -2]]
    assert np.isnan(answer.values[1:3]).all()
    assert answer.errors == (None, "decode: cut", "model: odd", None)
    assert answer.queue_ms.tolist() == [7, 0, 0, 8]
    assert answer.inference_ms.tolist() == [3, 0, 0, 3]
    with pytest.raises(ModelNotReady):
        pack_crops(model, [*outcomes, ModelNotReady("released")])
    assert pack_crops(model, []).values.shape == (0, 2)


# --- HTTP


async def test_the_answer_says_what_it_is_and_who_says_so(engine: Engine) -> None:
    answer = await classify(engine, RED)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-request-id"]
    body = answer.json()
    info = engine.store.describe(ONE).info
    assert body["model"] == {
        "name": "colours",
        "version": "1",
        "alias": "production",
        "weights_sha256": info.weights_sha256,
        "inference_key": info.inference_key,
    }
    assert body["image"] == {"width_px": 40, "height_px": 30, "media_type": "image/png", "decode_note": None}
    assert body["box_xyxy_px"] is None
    assert set(body["timings_ms"]) == {"queue", "preprocess", "inference", "postprocess"}
    logits = [(250 * WEIGHT[0, k] + 10 * WEIGHT[1, k] + 10 * WEIGHT[2, k]) / 255 for k in range(4)]
    total = math.fsum(math.exp(x) for x in logits)
    order = sorted(range(4), key=lambda k: -logits[k])
    assert body["classes"] == [
        {
            "label": LABELS[k],
            "class_id": k,
            "score": pytest.approx(math.exp(logits[k]) / total, rel=1e-4),
            "logit": pytest.approx(logits[k], rel=1e-4),
        }
        for k in order
    ]
    assert body["classes"][0]["label"] == "red"
    for one in body["classes"]:
        assert float(np.float32(one["score"])) == one["score"]


@pytest.mark.parametrize(("query", "count"), [({"top": 1}, 1), ({"top": 1000}, 4)])
async def test_top_is_how_many_classes_at_most(engine: Engine, query: dict[str, int], count: int) -> None:
    found = (await classify(engine, RED, **query)).json()["classes"]
    assert len(found) == count
    assert [one["score"] for one in found] == sorted((o["score"] for o in found), reverse=True)


@pytest.mark.parametrize(("box", "label"), [("29.5,0,600,20", "blue"), ("-5,-5,3,3", "red")])
async def test_a_box_is_classified_alone(engine: Engine, box: str, label: str) -> None:
    body = (await classify(engine, half_and_half(), box=box)).json()
    assert body["classes"][0]["label"] == label
    assert body["box_xyxy_px"] == [float(side) for side in box.split(",")]
    assert (body["image"]["width_px"], body["image"]["height_px"]) == (60, 20)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"box": "0,0,10"}, 400, "invalid box '0,0,10': use x1,y1,x2,y2"),
        ({"box": "0,0,nan,10"}, 400, "invalid box"),
        ({"box": "10,0,0,10"}, 400, "invalid box"),
        ({"box": "40,0,50,10"}, 400, "does not overlap the image of 40 x 30 px"),
        ({"top": 0}, 400, "top"),
        ({"model": "blobs"}, 400, "blobs@1 is a detector: use POST /v1/detect"),
        ({"model": "nothing"}, 404, "available: blobs, colours"),
    ],
)
async def test_what_cannot_be_answered_is_a_problem(
    engine: Engine, query: dict[str, Any], status: int, words: str
) -> None:
    assert words in problem_of(await classify(engine, RED, **query), status)


async def test_each_file_of_a_form_has_its_own_result(engine: Engine) -> None:
    files = [("image", ("red.png", RED)), ("image", ("no.png", b"none")), ("b", ("two.png", half_and_half()))]
    async with client(engine) as api:
        answer = await api.post("/v1/classify?model=colours&box=30,0,60,20&top=1", files=files)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [(one["name"], one["status"]) for one in results] == [("red.png", 200), ("no.png", 415), ("two.png", 200)]
    assert [one["answer"]["classes"][0]["label"] for one in results[::2]] == ["red", "blue"]
    assert results[1]["answer"] is None
    assert results[1]["problem"]["status"] == 415


async def test_v2_refuses_the_score_of_a_detector_for_a_classifier(engine: Engine) -> None:
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(RED).decode()]}
    async with client(engine) as api:
        body = {"inputs": [image], "parameters": {"min_score": 0.5}}
        refused = await api.post("/v2/models/colours/infer", json=body)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"] == "min_score is a parameter of detectors, and colours is a classifier"


async def test_v2_lists_loads_and_unloads_a_classifier(own_engine: Engine) -> None:
    async with client(own_engine) as api:
        loaded = await api.post("/v2/repository/models/colours/load", json={"parameters": {"version": "2"}})
        assert loaded.status_code == 200, loaded.text
        index = (await api.post("/v2/repository/index", json={})).json()
        ready = await api.get("/v2/models/colours/versions/2/ready")
        gone = await api.post("/v2/repository/models/colours/unload", json={"parameters": {"version": "2"}})
    assert {"name": "colours", "version": "2", "state": "READY", "reason": ""} in index
    assert (ready.status_code, gone.status_code) == (200, 200)
