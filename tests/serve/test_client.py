"""The client of the HTTP API: errors as classes, with the time after which a request may succeed."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest

import serve.client
from model_store.errors import BadRequest, ClusterError, ModelNotReady, Overloaded, ResightError, TooSlow
from serve.client import Client


def client_of(answer: Callable[[httpx2.Request], httpx2.Response]) -> Client:
    client = Client("http://resight.test")
    client._http = httpx2.Client(transport=httpx2.MockTransport(answer), base_url="http://resight.test")
    return client


@pytest.mark.parametrize(
    ("status", "kind", "headers", "error", "after_s"),
    [
        (503, "model-not-ready", {"Retry-After": "0"}, ModelNotReady, 0),
        (503, "too-slow", {"Retry-After": "0"}, TooSlow, 0),
        (503, "model-not-ready", {}, ModelNotReady, None),
        (429, "overloaded", {"Retry-After": "0"}, Overloaded, 0),
        (400, "bad-request", {}, BadRequest, None),
    ],
)
def test_an_error_has_its_class_and_the_time_of_the_answer(
    status: int, kind: str, headers: dict[str, str], error: type[ResightError], after_s: float | None
) -> None:
    problem, asked = {"type": f"urn:resight:{kind}", "detail": "why"}, list[httpx2.Request]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(status, json=problem, headers=headers)

    with pytest.raises(error, match="why") as raised:
        client_of(answer).process("slug", [])
    assert raised.value.retry_after_s == after_s
    assert len(asked) == 1, "the worker repeats it"


@pytest.mark.parametrize(("kind", "calls"), [(httpx2.ReadTimeout, 1), (httpx2.ReadError, 2)])
def test_a_connection_that_fails_is_an_error_that_may_end(kind: type[httpx2.HTTPError], calls: int) -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        raise kind("late")

    with pytest.raises(ClusterError, match="does not answer: late") as raised:
        client_of(answer).detect(b"", "deer")
    assert raised.value.retry_after_s == serve.client.SOON_S
    assert len(asked) == calls


@pytest.mark.parametrize("status", [429, 502, 503])
def test_an_answer_that_may_end_is_asked_for_again(status: int) -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return httpx2.Response(status if len(asked) == 1 else 400, headers={"Retry-After": "0"})

    with pytest.raises(ClusterError, match="HTTP 400"):
        client_of(answer).detect(b"", "deer")
    assert len(asked) == 2
