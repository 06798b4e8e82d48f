"""Uploads that are repeated, and how long."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx2
import pytest

from resight_client import ClientError, Rejected, Unreachable
from resight_client.server import Failed, Refused, Server, retry_after_s
from tests.client.shelf import Clock, Shelf, problem


class Upload:
    """One image, and a server that answers as it is told before it stores."""

    def __init__(self, place: Path) -> None:
        (place / "a.jpg").write_bytes(b"image")
        self._path, self.clock, self._shelf = bytes(place / "a.jpg"), Clock(), Shelf()
        self.server = Server("http://resight", "secret", 600, self._shelf, self.clock.wait, self.clock)

    def send(self, *answers: httpx2.Response | Exception) -> bool:
        self._shelf.answers.clear()
        self._shelf.answers.extend(answers)
        sha256 = hashlib.sha256(b"image").hexdigest()
        return self.server.send(self._path, 5, sha256, {"model": "deer"})


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    return Upload(tmp_path)


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_busy_server_is_asked_again_after_its_time(upload: Upload, status: int) -> None:
    assert upload.send(problem(status, "x", Retry_After="7"))
    assert upload.clock.waits_s == [7]


def test_waits_grow_until_an_answer_and_are_bounded(upload: Upload) -> None:
    upload.send(*[httpx2.ConnectError("reset")] * 8)
    waits_s = upload.clock.waits_s
    assert all(2**n / 2 * 0.99 <= wait <= 60 for n, wait in enumerate(waits_s[:5], 1))
    assert waits_s[-1] <= 60
    upload.send(httpx2.ConnectError("reset"))
    assert waits_s[-1] <= 2


STARTING = httpx2.Response(404, text="Path '/v1/images' not found. Ping http://.../-/routes for available routes.")


@pytest.mark.parametrize("answer", [httpx2.ConnectError("refused"), problem(429, "overloaded"), STARTING])
def test_a_server_that_is_away_or_full_is_given_up_in_time(upload: Upload, answer: httpx2.Response | Exception) -> None:
    for start_s in (0, 10_000):  # each upload has its own time
        upload.clock.now_s = start_s
        with pytest.raises(Unreachable, match=r"does not answer: refused|429|404"):
            upload.send(*[answer] * 999)
        assert 300 < upload.clock.now_s - start_s <= 600


def test_a_retry_after_beyond_the_time_ends_at_once(upload: Upload) -> None:
    with pytest.raises(Unreachable, match="429 the overloaded"):
        upload.send(problem(429, "overloaded", Retry_After="601"))
    with pytest.raises(Failed, match="503 the unavailable"):
        upload.send(problem(503, "unavailable", Retry_After="601"))
    assert upload.clock.now_s == 0


@pytest.mark.parametrize("answer", [*(problem(status, "x") for status in (408, 503)), httpx2.ReadError("reset")])
def test_an_image_for_which_the_server_fails_has_three_attempts(
    upload: Upload, answer: httpx2.Response | Exception
) -> None:
    with pytest.raises(Failed):
        upload.send(*[answer] * 3)
    assert len(upload.clock.waits_s) == 2
    assert upload.send(answer, answer)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(400, "image-unreadable"), Refused),
        (problem(413, "image-too-large"), Refused),
        (httpx2.Response(413, text="<html>"), Refused),
        (httpx2.Response(200, json={"media": {"media_sha256": "0", "is_new": True}}), Refused),
        (problem(400, "bad-request"), Rejected),
        (problem(403, "forbidden"), Rejected),
        (problem(404, "model-not-found"), Rejected),
        (httpx2.Response(404, text="<html>"), Rejected),
        (httpx2.Response(200, json=[1]), Rejected),
        (httpx2.Response(200, text="<html>"), Rejected),
    ],
)
def test_errors_that_stay_are_raised_at_once(upload: Upload, answer: httpx2.Response, kind: type[ClientError]) -> None:
    with pytest.raises(kind):
        upload.send(answer)
    assert not upload.clock.waits_s


def test_the_seconds_of_retry_after() -> None:
    assert retry_after_s("12") == 12
    assert retry_after_s("9" * 30) == 999_999_999
    for text in ("", "-1", "soon", "1e9", "²", "Thu, 01 Jan 2026 00:00:00 GMT"):
        assert retry_after_s(text) == 0


@pytest.mark.parametrize("url", ["http://[::1", "server:8000", "ftp://server", "", "http://me:pa/secret@host"])
def test_an_invalid_url_is_an_error(url: str) -> None:
    with pytest.raises(Rejected, match="invalid URL") as error:
        Server(url)
    assert "secret" not in str(error.value)


def test_user_and_password_of_the_url_are_sent_but_not_named() -> None:
    assert Server("http://me:secret@host:8000/").url == "http://host:8000"
