"""Request ids and deadlines, from the header to the answer."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import MODELS, photo
from tests.serve.http_client import client


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(DetectArgs(models=str(MODELS), workers=1))
    yield engine
    engine.stop()


async def post(engine: Engine, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client(engine) as api:
        return await api.post("/v1/detect?model=motion@1", content=photo("cat"), headers=named)


async def test_an_answer_carries_the_sender_s_id_or_a_new_one(engine: Engine) -> None:
    assert (await post(engine, x_request_id="upload-7")).headers["x-request-id"] == "upload-7"
    new = [(await post(engine)).headers["x-request-id"] for _ in range(2)]
    assert len(set(new)) == 2
    for odd in ("x" * 129, "a b"):
        given = (await post(engine, x_request_id=odd)).headers["x-request-id"]
        assert given != odd


async def test_what_can_be_done_in_time_is_done(engine: Engine) -> None:
    assert (await post(engine, x_request_timeout_ms="60000")).status_code == 200


async def test_a_deadline_that_has_passed_costs_no_inference(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.resolver.get("motion@1")
    ran: list[object] = []
    monkeypatch.setattr(engine.batcher, "_ran", lambda key, size: ran.append(size))
    answer = await engine_detect_late(engine)
    assert answer == "DeadlinePassed"
    assert ran == []


async def engine_detect_late(engine: Engine) -> str:
    try:
        await engine.detect(photo("cat"), "motion@1", deadline_s=0.0)
    except Exception as error:
        return type(error).__name__
    return "answered"


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "soon", "9" * 30, "600001"])
async def test_a_deadline_that_is_none_is_refused(engine: Engine, text: str) -> None:
    answer = await post(engine, x_request_timeout_ms=text)
    assert answer.status_code == 400
    assert "whole milliseconds" in answer.json()["detail"]
