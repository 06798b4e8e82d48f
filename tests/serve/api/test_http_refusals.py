"""What the HTTP API refuses, and in which words: wrong, too large, too many, broken."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from model_store.detector import LoadedDetector
from model_store.errors import ModelRefused
from serve.inference.engine import Engine
from serve.settings import Limits
from tests.fixtures_local import encoded
from tests.serve.http_client import CAT, MIB, MakeEngine, client, post, problem_of


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({}, "model: Field required"),
        ({"model": "../etc"}, "is not a model"),
        ({"model": "motion", "min_score": "2"}, "min_score"),
        ({"model": "motion", "min_score": "nan"}, "min_score"),
    ],
)
async def test_a_wrong_parameter_is_a_400_that_names_it(engine: Engine, query: dict[str, str], words: str) -> None:
    async with client(engine) as api:
        answer = await api.post("/v1/detect", content=CAT, params=query)
    assert words in problem_of(answer, 400)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "the body is empty"),
        (CAT[:300], 400, "damaged"),
        (b"GIF89a" + b"\x00" * 20, 415, "image/gif"),
        (b"no image at all", 415, "supported are jpeg, png, webp, tiff, bmp"),
    ],
)
async def test_a_body_that_is_no_whole_image_is_refused(engine: Engine, body: bytes, status: int, words: str) -> None:
    assert words in problem_of(await post(engine, body, "motion"), status)


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("deer", "available: motion, ssdlite-coco"),
        ("motion@2", "available: motion@1"),
        ("motion:canary", "aliases: production"),
    ],
)
async def test_an_unknown_model_is_a_404_that_lists_what_exists(engine: Engine, ref: str, words: str) -> None:
    assert words in problem_of(await post(engine, CAT, ref), 404)


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
async def test_json_without_its_type_gets_the_header_to_send(engine: Engine, headers: dict[str, str]) -> None:
    async with client(engine) as api:
        answer = await api.post("/antenna/process", content=b"{}", headers=headers)
    assert "with the header 'Content-Type: application/json'" in problem_of(answer, 400)


async def test_multipart_that_is_no_form_gets_the_way_to_do_it(engine: Engine) -> None:
    detail = problem_of(await post(engine, CAT, headers={"content-type": "Multipart/Related"}), 400)
    assert "--data-binary" in detail
    assert "--form" in detail


async def test_a_streamed_body_over_the_limit_is_refused_as_soon_as_it_is(blobs: MakeEngine) -> None:
    engine = await blobs(limits=Limits(body_mib=1))
    read: list[int] = []

    async def stream() -> AsyncIterator[bytes]:
        for i in range(10):
            read.append(i)
            yield b"x" * (MIB // 2)

    answer = await post(engine, stream(), "blobs")
    assert "limit of 1 MiB" in problem_of(answer, 413)
    assert len(read) < 10


async def test_too_many_pixels_by_the_header_are_refused(blobs: MakeEngine) -> None:
    engine = await blobs(limits=Limits(megapixels=1))
    small, large = (np.zeros((height, 1000, 3), np.uint8) for height in (1000, 1001))
    assert (await post(engine, encoded(small, "PNG"), "blobs")).status_code == 200
    answer = await post(engine, encoded(large, "PNG"), "blobs")
    assert "1000x1001 is over the limit of 1 megapixels" in problem_of(answer, 413)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/", 404, "unknown path /; see /docs for all paths"),
        ("/v1/images/" + "ab" * 32, 404, f"unknown path /v1/images/{'ab' * 32}; see /docs"),
        ("/v1/detect", 405, "use POST here"),
    ],
)
async def test_the_frameworks_own_errors_are_problems_too(engine: Engine, path: str, status: int, words: str) -> None:
    async with client(engine) as api:
        assert words in problem_of(await api.get(path), status)


async def test_a_browser_at_the_address_alone_gets_the_page(engine: Engine) -> None:
    async with client(engine) as api:
        answer = await api.get("/?from=mail", headers={"accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["location"]) == (303, "ui/")


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


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_read(blobs: MakeEngine) -> None:
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
