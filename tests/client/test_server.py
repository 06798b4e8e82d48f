"""Requests that are repeated, and how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from resight_client import Refused, Unreachable
from resight_client.server import Rejected, Server, retry_after_s
from tests.client.shelf import Clock, Shelf, problem


def detected(*answers: httpx2.Response | Exception, clock: Clock | None = None) -> dict[str, Any]:
    shelf, clock = Shelf(), clock or Clock()
    shelf.answers.extend(answers)
    with Server("http://resight", "secret", 600, shelf, clock.wait, clock) as server:
        return server.detect(b"image", "deer")


OK = httpx2.Response(200, json={"detections": []})


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 507])
def test_a_busy_server_is_asked_again_after_its_time(status: int) -> None:
    clock = Clock()
    assert detected(problem(status, "x", Retry_After="7"), OK, clock=clock) == {"detections": []}
    assert clock.waits_s == [7]


def test_waits_grow_and_are_bounded() -> None:
    clock = Clock()
    detected(*[httpx2.ReadError("reset")] * 8, OK, clock=clock)
    assert all(2**n / 2 * 0.99 <= wait <= 60 for n, wait in enumerate(clock.waits_s[:6], 1))
    assert clock.waits_s[-1] <= 60


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    clock = Clock()
    with pytest.raises(Unreachable, match="does not answer: refused"):
        detected(*[httpx2.ConnectError("refused")] * 999, clock=clock)
    assert 300 < clock.now_s <= 600


def test_a_retry_after_beyond_the_time_ends_at_once() -> None:
    clock = Clock()
    with pytest.raises(Unreachable, match="429 the overloaded"):
        detected(problem(429, "overloaded", Retry_After="601"), clock=clock)
    assert clock.now_s == 0


def test_an_image_that_breaks_the_server_is_refused_after_three_attempts() -> None:
    with pytest.raises(Refused, match="500 the internal-error"):
        detected(*[problem(500, "internal-error")] * 3, OK)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(400, "image-unreadable"), Refused),
        (problem(413, "image-too-large"), Refused),
        (httpx2.Response(413, text="<html>"), Refused),
        (problem(400, "bad-request"), Rejected),
        (problem(403, "forbidden"), Rejected),
        (httpx2.Response(200, json=[1]), Rejected),
    ],
)
def test_errors_that_stay_are_raised_at_once(
    answer: httpx2.Response, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        detected(answer)


def test_the_seconds_of_retry_after() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert 80 < retry_after_s(format_datetime(later, usegmt=True)) <= 90
    assert retry_after_s("12") == 12
    assert retry_after_s("9" * 30) == 3600
    for text in ("", "-1", "soon", "1e9", "²", "Thu, 99 Xxx"):
        assert retry_after_s(text) == 0


@pytest.mark.parametrize("url", ["http://[::1", "server:8000", "ftp://server", ""])
def test_an_invalid_url_is_an_error(url: str) -> None:
    with pytest.raises(Rejected, match="invalid URL"):
        Server(url)
