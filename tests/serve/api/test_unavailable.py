"""Ray's answer for a replica that ended becomes a 503; an application's answer stays."""

from __future__ import annotations

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from serve.api import problems
from serve.api.headers import Unavailable, middlewares


def api_that_answers(answer: Response) -> FastAPI:
    api = FastAPI(middleware=middlewares())
    api.get("/")(lambda: answer)
    return api


async def got(answer: Response) -> httpx2.Response:
    transport = httpx2.ASGITransport(api_that_answers(answer))
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as client:
        return await client.get("/")


async def test_rays_500_is_a_503_to_repeat() -> None:
    answer = await got(PlainTextResponse("Internal Server Error", 500))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"] == "urn:resight:no-replica"
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_what_ray_raises_is_a_503_to_repeat() -> None:
    async def dies(*_: object) -> None:
        raise RuntimeError("the actor died")

    transport = httpx2.ASGITransport(Unavailable(dies), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    logged = httpx2.ASGITransport(Unavailable(dies))
    async with httpx2.AsyncClient(transport=logged, base_url="http://resight") as client:
        with pytest.raises(RuntimeError, match="the actor died"):  # for the server's log
            await client.get("/")


async def test_no_answer_at_all_is_a_503_to_repeat() -> None:
    async def returns(*_: object) -> None:
        pass

    transport = httpx2.ASGITransport(Unavailable(returns))
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_what_is_raised_after_the_start_of_an_answer_is_not_answered_again() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("broken")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(RuntimeError, match="broken"):
        await Unavailable(breaks)({"type": "http"}, send, send)  # type: ignore[arg-type]
    assert [message["status"] for message in sent] == [200]


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("fine", 200),
        PlainTextResponse("no replica", 503),
        Response(b'{"error": "x"}', 500, media_type="application/json"),
        problems.problem(500, "InternalError", "see the replica's log"),
    ],
)
async def test_every_other_answer_stays_as_it_is(answer: Response) -> None:
    seen = await got(answer)
    assert (seen.status_code, seen.content) == (answer.status_code, bytes(answer.body))
    assert seen.headers["content-type"] == answer.headers["content-type"]
