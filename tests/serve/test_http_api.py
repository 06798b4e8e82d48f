"""The HTTP API over a real engine, in this process: no Ray, no socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model_store.detector import LoadedDetector
from model_store.errors import ModelRefused, Overloaded
from model_store.images import decode
from model_store.names import VersionId
from serve.access import Access
from serve.engine import Engine
from serve.http_api import build_http_api
from serve.settings import DetectArgs, Limits
from tests.fixtures_local import MODELS, encoded, motion_store, photo, write_json

TIMEOUT_S = 20
MIB = 1024 * 1024
CAT = photo("cat")
CAT_PIXELS = decode(CAT).pixels

MakeEngine = Callable[..., Awaitable[Engine]]


async def engine_over(models: Path, **args: Any) -> Engine:
    """Every alias loaded; nobody polls, so that a test decides when alias files are read."""
    engine = Engine(DetectArgs(models=str(models), workers=1, **args))
    await engine.residents.refresh()
    return engine


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = asyncio.run(engine_over(MODELS))
    yield engine
    engine.stop()


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[MakeEngine]:
    """Engines over a store with the small model `blobs`, versions 1 and 2."""
    motion_store(tmp_path, "1", "2")
    made: list[Engine] = []

    async def make(models: Path = tmp_path, **args: Any) -> Engine:
        made.append(await engine_over(models, **args))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def client(engine: Engine, token: str = "", raise_errors: bool = True) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(
        build_http_api(engine, Access(token)), raise_app_exceptions=raise_errors
    )
    return httpx.AsyncClient(transport=transport, base_url="http://resight")


async def post(
    engine: Engine, body: Any, model: str = "ssdlite-coco", token: str = "", **query: Any
) -> httpx.Response:
    headers = query.pop("headers", {})
    async with client(engine, token) as api:
        parameters = {"model": model, **query}
        return await api.post("/v1/detect", content=body, params=parameters, headers=headers)


def has_room(engine: Engine) -> bool:
    try:
        with engine.slot():
            pass
    except Overloaded:
        return False
    return True


def problem_of(answer: httpx.Response, status: int) -> str:
    """The detail of a problem answer, which must be well formed."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["type"].startswith("urn:resight:")
    assert body["status"] == status
    assert body["title"]
    return str(body["detail"])


async def test_a_cat_is_a_cat_and_the_answer_says_who_says_so(engine: Engine) -> None:
    answer = await post(engine, CAT)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    best = body["detections"][0]
    assert best["label"] == "cat"
    assert best["score"] > 0.5
    x1, y1, x2, y2 = best["box_xyxy_px"]
    assert 0 <= x1 < x2 <= 451
    assert 0 <= y1 < y2 <= 300
    info = engine.store.describe(VersionId("ssdlite-coco", "1")).info
    assert body["model"] == {
        "name": "ssdlite-coco",
        "version": "1",
        "alias": "production",
        "weights_sha256": info.weights_sha256,
        "inference_key": info.inference_key,
    }
    assert body["image"] == {
        "width_px": 451,
        "height_px": 300,
        "media_type": "image/jpeg",
        "decode_note": None,
    }
    assert set(body["timings_ms"]) == {"queue", "preprocess", "inference", "postprocess"}
    assert body["timings_ms"]["inference"] > 0
    assert body["saturated"] is False


@pytest.mark.parametrize(
    ("ref", "alias"),
    [("motion", "production"), ("motion:production", "production"), ("motion@1", None)],
)
async def test_the_alias_asked_for_is_in_the_answer(
    engine: Engine, ref: str, alias: str | None
) -> None:
    assert (await post(engine, CAT, ref)).json()["model"]["alias"] == alias


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
    ],
)
async def test_the_same_pixels_in_another_format_give_the_same_answer(
    engine: Engine, kind: str, options: dict[str, Any]
) -> None:
    want = (await post(engine, CAT, min_score=0.1)).json()
    answer = (await post(engine, encoded(CAT_PIXELS, kind, **options), min_score=0.1)).json()
    assert answer["detections"] == want["detections"]
    assert answer["image"]["media_type"] == f"image/{kind.lower()}"


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (8, 3), (3, 2), (6, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_boxes_are_in_the_upright_image_whatever_exif_says(
    engine: Engine, kind: str, orientation: int, turns: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(np.rot90(CAT_PIXELS, turns))
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    answer = (await post(engine, encoded(stored, kind, exif=exif.tobytes(), **options))).json()
    want = (await post(engine, CAT)).json()
    assert (answer["image"]["width_px"], answer["image"]["height_px"]) == (451, 300)
    assert [one["label"] for one in answer["detections"]] == ["cat"]
    np.testing.assert_allclose(
        answer["detections"][0]["box_xyxy_px"], want["detections"][0]["box_xyxy_px"], atol=4
    )


async def test_min_score_overrides_the_models_own_threshold(engine: Engine) -> None:
    scores = {
        least: [d["score"] for d in (await post(engine, CAT, **query)).json()["detections"]]
        for least, query in ((None, {}), (0.05, {"min_score": 0.05}), (1.0, {"min_score": 1.0}))
    }
    assert scores[1.0] == []
    assert len(scores[0.05]) > len(scores[None]) > 0
    assert scores[0.05] == sorted(scores[0.05], reverse=True)
    assert min(scores[None]) >= 0.4  # its config
    assert min(scores[0.05]) < 0.4


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({}, "model: Field required"),
        ({"model": ""}, "is not a model"),
        ({"model": "SSDLite"}, "is not a model"),
        ({"model": "a@1:b"}, "is not a model"),
        ({"model": "../etc"}, "is not a model"),
        ({"model": "motion", "min_score": "2"}, "min_score"),
        ({"model": "motion", "min_score": "nan"}, "min_score"),
        ({"model": "motion", "min_score": "high"}, "min_score"),
    ],
)
async def test_a_wrong_parameter_is_a_400_that_names_it(
    engine: Engine, query: dict[str, str], words: str
) -> None:
    async with client(engine) as api:
        answer = await api.post("/v1/detect", content=CAT, params=query)
    assert words in problem_of(answer, 400)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "the body is empty"),
        (CAT[:300], 400, "damaged"),
        (b"\xff\xd8\xff" + b"\x00" * 40, 400, "damaged"),
        (b"<!DOCTYPE html><html></html>", 415, "text/html"),
        (b"GIF89a" + b"\x00" * 20, 415, "image/gif"),
        (b"no image at all", 415, "supported are jpeg, png, webp, tiff, bmp"),
    ],
)
async def test_a_body_that_is_no_whole_image_is_refused(
    engine: Engine, body: bytes, status: int, words: str
) -> None:
    assert words in problem_of(await post(engine, body, "motion"), status)


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("deer", "there is: motion, ssdlite-coco"),
        ("motion@2", "there is: motion@1"),
        ("motion:canary", "aliases: production"),
    ],
)
async def test_an_unknown_model_is_a_404_that_lists_what_exists(
    engine: Engine, ref: str, words: str
) -> None:
    assert words in problem_of(await post(engine, CAT, ref), 404)


@pytest.mark.parametrize("kind", ["multipart/mixed; boundary=x", "Multipart/Related"])
async def test_multipart_that_is_no_form_gets_the_way_to_do_it(engine: Engine, kind: str) -> None:
    detail = problem_of(await post(engine, CAT, headers={"content-type": kind}), 400)
    assert "--data-binary" in detail
    assert "--form" in detail


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_read(
    blobs: MakeEngine,
) -> None:
    engine = await blobs(limits=Limits(body_mib=1))
    read: list[int] = []

    async def stream() -> AsyncIterator[bytes]:
        for i in range(3):
            read.append(i)
            yield b"x" * MIB

    declared = {"content-length": str(3 * MIB)}
    answer = await post(engine, stream(), "blobs", headers=declared)
    assert "limit of 1 MiB" in problem_of(answer, 413)
    assert read == []


async def test_a_streamed_body_over_the_limit_is_refused_as_soon_as_it_is(
    blobs: MakeEngine,
) -> None:
    engine = await blobs(limits=Limits(body_mib=1))
    read: list[int] = []

    async def stream() -> AsyncIterator[bytes]:
        for i in range(10):
            read.append(i)
            yield b"x" * (MIB // 2)

    answer = await post(engine, stream(), "blobs")
    assert "limit of 1 MiB" in problem_of(answer, 413)
    assert len(read) < 10


async def test_a_streamed_body_within_the_limit_is_answered(engine: Engine) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(CAT), 10_000):
            yield CAT[start : start + 10_000]

    answer = await post(engine, stream())
    assert answer.json()["detections"][0]["label"] == "cat"


async def test_too_many_pixels_by_the_header_are_refused(blobs: MakeEngine) -> None:
    engine = await blobs(limits=Limits(megapixels=1))
    small, large = (np.zeros((height, 1000, 3), np.uint8) for height in (1000, 1001))
    assert (await post(engine, encoded(small, "PNG"), "blobs")).status_code == 200
    answer = await post(engine, encoded(large, "PNG"), "blobs")
    assert "1000x1001 is over the limit of 1 megapixels" in problem_of(answer, 413)


async def test_a_full_replica_says_429_and_when_to_come_again(
    blobs: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await blobs(limits=Limits(online_queue=2))
    inferring, gate = threading.Event(), threading.Event()
    infer = LoadedDetector.infer

    def infer_at_the_gate(self: LoadedDetector, *args: Any) -> Any:
        inferring.set()
        assert gate.wait(TIMEOUT_S)
        return infer(self, *args)

    monkeypatch.setattr(LoadedDetector, "infer", infer_at_the_gate)
    admitted = [asyncio.create_task(post(engine, CAT, "blobs")) for _ in range(2)]
    assert await asyncio.to_thread(inferring.wait, TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        while has_room(engine):
            await asyncio.sleep(0)
    refused = await post(engine, CAT, "blobs")
    assert "the bound is 2" in problem_of(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    gate.set()
    assert [one.status_code for one in await asyncio.gather(*admitted)] == [200, 200]
    assert (await post(engine, CAT, "blobs")).status_code == 200


async def test_an_alias_whose_version_does_not_load_is_503_and_names_the_reason(
    blobs: MakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "blobs" / "2" / "config.json").write_text("{}")
    write_json(tmp_path / "blobs" / "aliases.json", {"production": "1", "canary": "2"})
    engine = await blobs()
    assert "READY says" in problem_of(await post(engine, CAT, "blobs:canary"), 503)
    assert (await post(engine, CAT, "blobs")).status_code == 200
    async with client(engine) as api:
        assert "blobs:canary" in problem_of(await api.get("/readyz"), 503)


async def test_the_api_is_ready_once_every_alias_is_loaded(blobs: MakeEngine) -> None:
    async with client(await blobs()) as api:
        ready = await api.get("/readyz")
        alive = await api.get("/healthz")
    assert (ready.status_code, ready.json()["loaded"]) == (200, ["blobs@1"])
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})


async def test_an_empty_store_is_alive_but_not_ready_and_says_what_to_do(
    blobs: MakeEngine, tmp_path: Path
) -> None:
    engine = await blobs(models=tmp_path / "nothing")
    async with client(engine) as api:
        assert "resight models add" in problem_of(await api.get("/readyz"), 503)
        assert (await api.get("/healthz")).status_code == 200
        assert (await api.get("/v1/models")).json()["models"] == []
    assert "there is: none" in problem_of(await post(engine, CAT, "blobs"), 404)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 401),
        ({"authorization": ""}, 401),
        ({"authorization": "secret"}, 401),
        ({"authorization": "Bearer secre"}, 401),
        ({"authorization": "Bearer secret2"}, 401),
        ({"authorization": "Bearer secret"}, 200),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/detect?model=motion"),
        ("GET", "/v1/models"),
        ("POST", "/v1/models/reload"),
    ],
)
async def test_with_a_token_all_of_v1_asks_for_it(
    engine: Engine, method: str, path: str, sent: dict[str, str], status: int
) -> None:
    async with client(engine, token="secret") as api:
        answer = await api.request(method, path, content=CAT, headers=sent)
    if status == 401:
        assert "Bearer TOKEN" in problem_of(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.status_code == status


async def test_health_needs_no_token_and_the_docs_do(engine: Engine) -> None:
    async with client(engine, token="secret") as api:
        for path in ("/healthz", "/readyz"):
            assert (await api.get(path)).status_code == 200, path
        for path in ("/docs", "/openapi.json"):
            assert (await api.get(path)).status_code == 401, path


async def test_models_lists_versions_aliases_and_what_is_resident(blobs: MakeEngine) -> None:
    engine = await blobs()
    async with client(engine) as api:
        body = (await api.get("/v1/models")).json()
    (model,) = body["models"]
    assert body["store"] == engine.store.url
    assert [(v["version"], v["aliases"], v["resident"]) for v in model["versions"]] == [
        ("1", ["production"], True),
        ("2", [], False),
    ]
    assert model["failures"] == {}


@pytest.mark.parametrize(
    ("damaged", "versions", "failure"),
    [
        ("2/config.json", ["1"], "blobs@2"),
        ("2/READY", ["1"], "blobs@2"),
        ("aliases.json", ["1", "2"], "blobs"),
    ],
)
async def test_models_lists_damage_as_a_failure(
    blobs: MakeEngine, tmp_path: Path, damaged: str, versions: list[str], failure: str
) -> None:
    engine = await blobs()
    (tmp_path / "blobs" / damaged).write_text("{")
    async with client(engine) as api:
        (model,) = (await api.get("/v1/models")).json()["models"]
    assert [v["version"] for v in model["versions"]] == versions
    assert list(model["failures"]) == [failure]


async def test_reload_follows_the_alias_files_now(blobs: MakeEngine, tmp_path: Path) -> None:
    engine = await blobs()
    write_json(tmp_path / "blobs" / "aliases.json", {"production": "2"})
    assert (await post(engine, CAT, "blobs")).json()["model"]["version"] == "1"
    async with client(engine) as api:
        (model,) = (await api.post("/v1/models/reload")).json()["models"]
    assert [v["aliases"] for v in model["versions"]] == [[], ["production"]]
    assert (await post(engine, CAT, "blobs")).json()["model"]["version"] == "2"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v1/nothing", 404), ("GET", "/v1/detect", 405)],
)
async def test_the_frameworks_own_errors_are_problems_too(
    engine: Engine, method: str, path: str, status: int
) -> None:
    async with client(engine) as api:
        problem_of(await api.request(method, path), status)


async def test_an_unknown_error_is_a_500_that_tells_nothing_but_its_kind(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("the secret path")

    monkeypatch.setattr(engine, "detect", fail)
    async with client(engine, raise_errors=False) as api:
        answer = await api.post("/v1/detect?model=motion", content=CAT)
    detail = problem_of(answer, 500)
    assert "LookupError" in detail
    assert "secret" not in answer.text


async def test_a_model_that_fails_in_inference_is_an_answer_and_the_replica_goes_on(
    blobs: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await blobs()

    def refuse(*_: object) -> None:
        raise ModelRefused("the network gives 3 columns")

    with monkeypatch.context() as patch:
        patch.setattr(LoadedDetector, "infer", refuse)
        assert "3 columns" in problem_of(await post(engine, CAT, "blobs"), 503)
    assert (await post(engine, CAT, "blobs")).status_code == 200


async def test_the_schema_describes_the_raw_body_and_every_problem(engine: Engine) -> None:
    async with client(engine) as api:
        schema = (await api.get("/openapi.json")).json()
        docs = await api.get("/docs")
    assert docs.status_code == 200
    assert "swagger" in docs.text.lower()
    detect = schema["paths"]["/v1/detect"]["post"]
    assert set(detect["requestBody"]["content"]) == {
        "multipart/form-data",
        *(f"image/{kind}" for kind in ("jpeg", "png", "webp", "tiff", "bmp")),
    }
    assert {"200", "400", "401", "404", "413", "415", "429", "503"} <= set(detect["responses"])
