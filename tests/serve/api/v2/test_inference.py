"""POST …/infer with a real engine in this process: refusals and their reasons, bounds, and one version a request."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import threading
import zlib
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

import serve.inference.workers
from model_store.adding.add import add_version
from model_store.detector import LoadedDetector
from model_store.names import version_id
from serve.api import problems
from serve.api.v2 import routes as v2
from serve.inference.engine import Engine, sample_of
from serve.inference.results import Answer
from serve.models.resolver import ModelResolver, ResolvedModel
from serve.settings import DetectArgs, Limits
from tests.fixtures_local import motion_store, photo
from tests.graphs import constant_graph, pooling
from tests.oracles.tensors import example

CAT = photo("cat")
PATH = "/v2/models/blobs/infer"
HEADER = "Inference-Header-Content-Length"
TIMEOUT_S = 20
SIDE = 64
ZEROS = np.zeros((1, 3, SIDE, SIDE), np.float32)

MakeEngine = Callable[..., Awaitable[Engine]]
RequestObject = tuple[bytes, dict[str, str]]


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[MakeEngine]:
    """Engines for a store with the small model `blobs`, versions 1 and 2."""
    motion_store(tmp_path, "1", "2")
    made: list[Engine] = []

    async def make(**args: Any) -> Engine:
        made.append(Engine(DetectArgs(models=str(tmp_path), workers=1, **args)))
        await made[-1].aliases.refresh()
        return made[-1]

    yield make
    for one in made:
        one.stop()


def client(engine: Engine) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(api_of(engine), raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://resight")


@lru_cache(maxsize=1)
def api_of(engine: Engine) -> FastAPI:
    """Return /v2 of an engine; building it takes longer than most requests."""
    api = FastAPI()
    problems.install(api)
    api.include_router(v2.router(engine))
    return api


async def post(engine: Engine, body: Any, path: str = PATH, **headers: str) -> httpx2.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client(engine) as api:
        return await api.post(path, content=body, headers=sent)


def error_of(answer: httpx2.Response, status: int) -> str:
    """The text of a refusal, which must have the format of v2."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert "content-encoding" not in answer.headers
    body = answer.json()
    assert set(body) == {"error"}
    assert body["error"]
    return str(body["error"])


def joined(header: Any, *binary: bytes) -> RequestObject:
    """A body with its binary part, and the HTTP header with the length of its JSON."""
    text = json.dumps(header).encode()
    return b"".join([text, *binary]), {HEADER: str(len(text))}


def elements(*images: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in images)


def of_images(*images: bytes, **changes: Any) -> RequestObject:
    data = elements(*images)
    size = {"binary_data_size": len(data)}
    tensor = {"name": "image", "shape": [len(images)], "datatype": "BYTES", "parameters": size}
    return joined({"inputs": [tensor | changes]}, data)


def of_tensor(values: np.ndarray = ZEROS, **changes: Any) -> RequestObject:
    data = values.tobytes()
    size = {"binary_data_size": len(data)}
    tensor = {"name": "images", "shape": list(values.shape), "datatype": "FP32", "parameters": size}
    return joined({"inputs": [tensor | changes]}, data)


async def test_too_many_bytes_are_refused_as_soon_as_that_is_known(blobs: MakeEngine) -> None:
    engine = await blobs(limits=Limits(body_mib=1))
    for coding, compress in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        bomb = compress(b" " * (16 << 20))
        answer = await post(engine, bomb, Content_Encoding=coding)
        assert "more than the limit of 1 MiB" in error_of(answer, 413)
    read: list[int] = []

    async def stream() -> Any:
        for i in range(20):
            read.append(i)
            yield b" " * (256 << 10)

    assert "limit of 1 MiB" in error_of(await post(engine, stream(), content_length=str(5 << 20)), 413)
    assert read == []
    assert "limit of 1 MiB" in error_of(await post(engine, stream()), 413)
    assert len(read) == 5


async def test_a_fault_of_ours_is_a_500_with_v2s_body(blobs: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(serve.inference.workers, "run_rows", broken)
    body, headers = of_tensor()
    async with client(await blobs()) as api:
        answer = await api.post(PATH, content=body, headers=headers)
    assert error_of(answer, 500) == "RuntimeError; see the replica's log"


async def test_each_image_takes_a_place_and_gives_it_back(blobs: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await blobs(limits=Limits(online_queue=3))
    inferring, gate = threading.Event(), threading.Event()
    infer = LoadedDetector.infer

    def at_the_gate(self: LoadedDetector, *args: Any) -> Any:
        inferring.set()
        assert gate.wait(TIMEOUT_S)
        return infer(self, *args)

    monkeypatch.setattr(LoadedDetector, "infer", at_the_gate)
    async with client(engine) as api:

        def send(images: int) -> Awaitable[httpx2.Response]:
            body, headers = of_images(*[CAT] * images)
            return api.post(PATH, content=body, headers=headers)

        first = asyncio.ensure_future(send(2))
        assert await asyncio.to_thread(inferring.wait, TIMEOUT_S)
        refused = await send(2)
        assert "the bound is 3" in error_of(refused, 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert "send 1 to 3 (limits.online_queue)" in error_of(await send(4), 400)
        second = asyncio.ensure_future(send(1))
        gate.set()
        assert [one.status_code for one in await asyncio.gather(first, second)] == [200, 200]
        assert (await send(3)).status_code == 200


async def test_one_version_answers_all_images_of_a_request(blobs: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await blobs()
    detect = Engine.detect
    asked: list[str] = []

    async def promoted_meanwhile(self: Engine, body: bytes, ref: ResolvedModel, *more: Any) -> Answer:
        asked.append(str(ref.detector.info.id))
        if len(asked) == 2:
            self.store.set_alias("blobs", "production", "2")
            await self.aliases.refresh()
        return await detect(self, body, ref, *more)

    monkeypatch.setattr(Engine, "detect", promoted_meanwhile)
    body, headers = of_images(CAT, CAT, CAT)
    async with client(engine) as api:
        first = await api.post(PATH, content=body, headers=headers)
        then = await api.post(PATH, content=body, headers=headers)
    assert set(asked[:3]) == {"blobs@1"}
    assert set(asked[3:]) == {"blobs@2"}
    assert (first.json()["model_version"], then.json()["model_version"]) == ("1", "2")


async def test_a_canary_is_chosen_by_the_first_image(blobs: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await blobs()
    get = ModelResolver.get
    samples: dict[str, float] = {}

    async def noted(self: ModelResolver, text: str, sample: float = 1.0) -> ResolvedModel:
        samples.setdefault(text, sample)
        return await get(self, text, sample)

    monkeypatch.setattr(ModelResolver, "get", noted)
    body, headers = of_images(CAT, photo("moose"))
    async with client(engine) as api:
        assert (await api.post(PATH, content=body, headers=headers)).status_code == 200
    assert samples["blobs"] == sample_of(CAT) < 1.0


async def test_a_canary_of_tensors_is_not_chosen_by_their_padding(
    blobs: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, samples = await blobs(), list[float]()

    async def noted(text: str, sample: float) -> ResolvedModel:
        samples.append(sample)
        raise KeyError(text)

    monkeypatch.setattr(engine.resolver, "get", noted)
    for value in (0.25, 0.5, 0.25):
        tensor = ZEROS.copy()
        tensor[:, :, 16:-16] = value
        body, headers = of_tensor(tensor)
        error_of(await post(engine, body, **headers), 500)
    assert samples[0] == samples[2] != samples[1]


async def test_the_headers_of_v1_mean_the_same_here(blobs: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await blobs()
    body, headers = of_images(CAT)
    async with client(engine) as api:

        async def send(**more: str) -> httpx2.Response:
            named = {name.replace("_", "-"): value for name, value in more.items()}
            return await api.post(PATH, content=body, headers={**headers, **named})

        answer = await send(x_request_id="seven", x_request_timeout_ms="60000")
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, "seven")
        assert "whole milliseconds" in error_of(await send(x_request_timeout_ms="0"), 400)
        monkeypatch.setattr(v2, "deadline_of", lambda _: 0.0)
        assert "deadline" in error_of(await send(), 504)


@pytest.mark.parametrize(
    ("sent", "path", "outcome", "version"),
    [
        ((b"{", {}), PATH, "BadRequest", ""),
        (of_images(CAT), "/v2/models/deer/infer", "ModelNotFound", ""),
        (of_images(b"no image"), PATH, "ImageUnsupported", "1"),
        (of_tensor(ZEROS[:, :, 1:]), PATH, "BadRequest", "1"),
        (of_tensor(), PATH, "KeyError", ""),
    ],
)
async def test_each_failure_is_counted_and_logged_once(
    blobs: MakeEngine, monkeypatch: pytest.MonkeyPatch, sent: RequestObject, path: str, outcome: str, version: str
) -> None:
    engine = await blobs()
    if outcome == "KeyError":

        async def broken(*_: object) -> ResolvedModel:
            raise KeyError("broken")

        monkeypatch.setattr(engine.resolver, "get", broken)
    with capture_logs() as logs:
        answer = await post(engine, sent[0], path, **{**sent[1], "x_request_id": "seven"})
    assert answer.status_code >= 400
    counts = [line for line in engine.exposition().splitlines() if "requests_total{" in line]
    name = "blobs" if version else ""
    labels = f'model="{name}",outcome="{outcome}",version="{version}"'
    assert counts == [f"resight_requests_total{{{labels}}} 1.0"]
    refused = [entry["outcome"] for entry in logs if entry.get("request") == "seven"]
    assert refused == [outcome]


async def test_without_a_model_the_server_is_alive_but_not_ready(tmp_path: Path) -> None:
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    try:
        async with client(engine) as api:
            assert (await api.get("/v2/health/live")).json() == {"live": True}
            assert "models pull" in error_of(await api.get("/v2/health/ready"), 503)
            assert (await api.post("/v2/repository/index")).json() == []
            assert (await api.get("/v2/models/stats")).json() == {"model_stats": []}
            answer = await api.post(PATH, content=of_images(CAT)[0], headers=of_images(CAT)[1])
            assert "available: none" in error_of(answer, 404)
    finally:
        engine.stop()


async def test_an_output_says_better_than_its_request_how_it_wants_to_be_written(blobs: MakeEngine) -> None:
    data = elements(CAT)
    size = {"binary_data_size": len(data)}
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": size}
    outputs = [{"name": "num_detections"}, {"name": "scores", "parameters": {"binary_data": False}}]
    asked = {"inputs": [tensor], "outputs": outputs, "parameters": {"binary_data_output": True}}
    body, headers = joined(asked, data)
    async with client(await blobs()) as api:
        answer = await api.post(PATH, content=body, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    counts, scores = json.loads(answer.content[: int(answer.headers[HEADER])])["outputs"]
    assert (counts["parameters"], "data" in counts) == ({"binary_data_size": 4}, False)
    assert ("parameters" in scores, isinstance(scores["data"], list)) == (False, True)


async def test_numbers_that_json_cannot_say_are_had_in_binary(tmp_path: Path) -> None:
    outputs = example("yolov8", np.random.default_rng(1), 2, 1, SIDE)
    wanted = outputs["output0"]
    wanted[1, 0, 0] = np.inf
    engine = engine_of(tmp_path, constant_graph(outputs, SIDE, {"names": "['deer']"}))
    values = ZEROS.copy()
    values[0, 0, 0, 0] = 1 / 255  # the row with the infinity
    body, headers = of_tensor(values)
    await engine.aliases.refresh()
    try:
        async with client(engine) as api:
            path = "/v2/models/deer/infer"
            answer = await api.post(path, content=body, headers=headers)
            assert "request it with binary_data" in error_of(answer, 400)
            header = json.loads(body[: int(headers[HEADER])])
            header["parameters"] = {"binary_data_output": True}
            body, headers = joined(header, values.tobytes())
            answer = await api.post(path, content=body, headers=headers)
    finally:
        engine.stop()
    data = answer.content[int(answer.headers[HEADER]) :]
    assert np.array_equal(np.frombuffer(data, np.float32).reshape(wanted[1].shape), wanted[1])


async def test_a_rect_model_takes_every_size_its_preprocessing_could_make(tmp_path: Path) -> None:
    metadata = {"names": "{0: 'deer'}", "stride": "32", "imgsz": "[128, 128]"}
    engine = engine_of(tmp_path, pooling(5, metadata))
    await engine.aliases.refresh()
    async with client(engine) as api:
        found = (await api.get("/v2/models/deer")).json()
        answers = {}
        for height, width in ((128, 128), (64, 128), (96, 32), (100, 128), (0, 64), (160, 128)):
            body, headers = of_tensor(np.ones((2, 3, height, width), np.float32))
            answers[height, width] = await api.post("/v2/models/deer/infer", content=body, headers=headers)
    engine.stop()
    assert found["inputs"][1]["shape"] == [-1, 3, -1, -1]
    assert found["outputs"][-1]["shape"] == [-1, 5, -1]
    assert "multiples of 32" in error_of(answers.pop((100, 128)), 400)
    assert "multiples of 32" in error_of(answers.pop((160, 128)), 400)
    assert "has a length of 0" in error_of(answers.pop((0, 64)), 400)
    for (height, width), answer in answers.items():
        assert answer.status_code == 200, answer.text
        (output,) = answer.json()["outputs"]
        assert output["shape"] == [2, 5, height * width // 64]
        assert output["data"][0] == pytest.approx(1.0)


def engine_of(folder: Path, weights: bytes) -> Engine:
    engine = Engine(DetectArgs(models=str(folder), workers=1))
    add_version(engine.store, version_id("deer", "1"), weights, {}, {})
    engine.store.set_alias("deer", "production", "1")
    return engine
