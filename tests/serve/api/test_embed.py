"""Test embedders in an engine and over HTTP: POST /v1/embed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from model_store.embedder import Embedder
from model_store.errors import BadRequest
from model_store.images.decode import decode
from serve.inference.chunks import Chunk
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import motion_store, photo
from tests.model_store.classifiers import colour_store
from tests.model_store.embedders import look_store
from tests.serve.http_client import client, problem_of

CAT, MOOSE = photo("cat"), photo("moose")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """`looks`, an embedder, `colours`, a classifier, and `blobs`, a detector."""
    place = tmp_path_factory.mktemp("embed")
    look_store(place).set_alias("looks", "production", "1")
    colour_store(place).set_alias("colours", "production", "1")
    motion_store(place, "1")
    engine = Engine(DetectArgs(models=str(place), workers=1))
    asyncio.run(engine.aliases.refresh())
    yield engine
    engine.stop()


async def embed(engine: Engine, body: Any, model: str = "looks", **query: Any) -> Any:
    async with client(engine) as api:
        return await api.post("/v1/embed", content=body, params={"model": model, **query})


def vector_of(engine: Engine, pixels: np.ndarray) -> list[float]:
    model = next(engine.models.model(version) for version in engine.models.names if version.name == "looks")
    assert isinstance(model, Embedder)
    return model.of_images([pixels])[0].tolist()


async def test_the_answer_has_the_vector_of_the_image(engine: Engine) -> None:
    answer = await embed(engine, CAT)
    assert answer.status_code == 200
    body = answer.json()
    assert body["vector"] == vector_of(engine, decode(CAT).pixels)
    assert (body["model"]["name"], body["model"]["version"], body["box_xyxy_px"]) == ("looks", "1", None)
    assert body["timings_ms"]["inference"] > 0


async def test_a_box_has_the_vector_of_its_crop(engine: Engine) -> None:
    body = (await embed(engine, CAT, box="10,20,110,90")).json()
    assert body["vector"] == vector_of(engine, decode(CAT).pixels[20:90, 10:110])
    assert body["box_xyxy_px"] == [10, 20, 110, 90]


async def test_each_file_of_a_form_is_answered(engine: Engine) -> None:
    async with client(engine) as api:
        files = [("file", ("cat.jpg", CAT)), ("file", ("bad.jpg", b"no picture")), ("file", ("moose.jpg", MOOSE))]
        results = (await api.post("/v1/embed", files=files, params={"model": "looks"})).json()["results"]
    assert [result["status"] for result in results] == [200, 415, 200]
    assert results[2]["answer"]["vector"] == vector_of(engine, decode(MOOSE).pixels)


async def test_both_lanes_give_the_same_vectors_bit_for_bit(engine: Engine) -> None:
    model = (await engine.resolver.get("looks@1")).crop_model(Embedder)
    inputs = np.stack([model.prepare(decode(body).pixels) for body in (CAT, MOOSE)])
    answer = await engine.crops_chunk(Chunk.of_inputs("looks@1", inputs))
    online = [await engine.infer_crop(Embedder, body, "looks@1") for body in (CAT, MOOSE)]
    np.testing.assert_array_equal(answer.values, np.stack([one.values for one in online]))


@pytest.mark.parametrize(
    ("route", "model", "words"),
    [
        ("embed", "colours", "colours@1 is a classifier: use POST /v1/classify, or choose an embedder"),
        ("embed", "blobs", "blobs@1 is a detector: use POST /v1/detect, or choose an embedder"),
        ("classify", "looks", "looks@1 is an embedder: use POST /v1/embed, or choose a classifier"),
        ("detect", "looks", "looks@1 is an embedder: use POST /v1/embed, or choose a detector"),
    ],
)
async def test_another_kind_is_refused_by_its_name(engine: Engine, route: str, model: str, words: str) -> None:
    async with client(engine) as api:
        answer = await api.post(f"/v1/{route}", content=CAT, params={"model": model})
    assert words in problem_of(answer, 400)
    with pytest.raises(BadRequest, match="use POST /v1/detect, or choose a classifier or an embedder"):
        await engine.crops_chunk(Chunk.of_inputs("blobs@1", np.zeros((1, 16, 16, 3), np.uint8)))


async def test_models_lists_the_kind(engine: Engine) -> None:
    async with client(engine) as api:
        models = (await api.get("/v1/models")).json()["models"]
    kinds = {model["name"]: {version["kind"] for version in model["versions"]} for model in models}
    assert kinds == {"looks": {"embedder"}, "colours": {"classifier"}, "blobs": {"detector"}}
