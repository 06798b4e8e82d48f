"""Broken HTTP, huge headers, slow and cut bodies, against a real uvicorn server, as a replica is one.

It answers with a 4xx or hangs up; no place stays taken, and the next request is answered.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.inference.engine import Engine
from tests.serve.hostile import CAT, DETECT, INFER, PLACES, Live, engine_in, serving, status_of


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = engine_in(tmp_path_factory.mktemp("hostile"))
    yield engine
    assert engine.admission.images.taken == 0
    engine.stop()


@pytest.fixture(scope="module")
def live(engine: Engine) -> Iterator[Live]:
    yield from serving(engine)


def posted(path: str = DETECT, *headers: str, length: int | None = len(CAT)) -> bytes:
    """The head of a request."""
    lines = [f"POST {path} HTTP/1.1", "host: x", *headers]
    lines += [] if length is None else [f"content-length: {length}"]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


CHUNKED = "transfer-encoding: chunked"
BROKEN: dict[str, bytes] = {
    "TLS": b"\x16\x03\x01\x02\x00" * 20 + b"\r\n\r\n",
    "HTTP/9": b"GET / HTTP/9.9\r\n\r\n",
    "unknown method": b"BREW /v1/detect HTTP/1.1\r\nhost: x\r\n\r\n",
    "websocket": b"GET /v1/detect HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
    "path of bytes": b"GET /v1/models/\xff\xfe%00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "long path": b"GET /v2/" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "negative length": posted(length=-5),
    "two lengths": posted(DETECT, "content-length: 5") + b"abcdef",
    "length and chunks": posted(DETECT, CHUNKED) + b"abcdef",
    "chunk of no size": posted(DETECT, CHUNKED, length=None) + b"zz\r\nabc\r\n",
    "zero in a header": posted(DETECT, "a: b\0c", length=0),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_http_is_refused_or_hung_up_on(live: Live, case: str) -> None:
    status = live.says(BROKEN[case], shut=True)
    assert status is None or 400 <= status < 500, status
    assert live.says(posted(), CAT) == 200
    live.becomes_free(PLACES)


@pytest.mark.parametrize(
    "headers", [[f"x-large: {'a' * (1 << 20)}"], [f"x-{i}: {'a' * 200}" for i in range(5000)]], ids=["one", "many"]
)
def test_huge_headers_are_refused_or_do_not_matter(live: Live, headers: list[str]) -> None:
    status = live.says(posted(DETECT, *headers), CAT)
    assert status is None or status < 500
    assert live.says(posted(), CAT) == 200


def test_a_body_that_comes_in_pieces_is_the_same(live: Live) -> None:
    parts = [CAT[at : at + 4096] for at in range(0, len(CAT), 4096)]
    assert live.says(posted(), *parts) == 200
    chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    assert live.says(posted(DETECT, CHUNKED, length=None), chunks, b"0\r\n\r\n") == 200


HALVES: dict[str, bytes] = {
    "an image": posted() + CAT[:1000],
    "a chunk": posted(DETECT, CHUNKED, length=None) + b"ffffffffffffffff\r\nabc",
    "a form": posted(DETECT, "content-type: multipart/form-data; boundary=b")
    + b"--b\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n"
    + CAT[:1000],
    "a tensor": posted(INFER) + b'{"inputs": [',
}


@pytest.mark.parametrize("case", HALVES)
def test_who_breaks_off_is_no_error_in_the_log(live: Live, case: str, caplog: pytest.LogCaptureFixture) -> None:
    with live.connect() as connection:
        connection.sendall(HALVES[case])
        live.becomes_free(PLACES - 1)
    live.becomes_free(PLACES)
    assert live.says(posted(), CAT) == 200  # by then the other one is through
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_slow_bodies_take_places_that_come_back_when_they_hang_up(live: Live) -> None:
    slow = [live.connect() for _ in range(PLACES)]
    for connection in slow:
        connection.sendall(posted() + CAT[:1])
    live.becomes_free(0)
    assert live.says(posted(), CAT) == 429
    slow.pop().close()
    live.becomes_free(1)
    assert live.says(posted(), CAT) == 200
    for connection in slow:
        connection.sendall(CAT[1:])
        assert status_of(connection) == 200
        connection.close()
    live.becomes_free(PLACES)


def test_a_body_that_does_not_arrive_in_time_gives_up_its_place(tmp_path: Path) -> None:
    engine = engine_in(tmp_path, body_s=1)
    try:
        for live in serving(engine):
            with contextlib.ExitStack() as opened:
                slow = [opened.enter_context(live.connect()) for _ in HALVES]
                for connection, half in zip(slow, HALVES.values(), strict=True):
                    connection.sendall(half)
                live.becomes_free(PLACES - len(HALVES))
                assert [status_of(connection) for connection in slow] == [408] * len(HALVES)
                live.becomes_free(PLACES)
    finally:
        engine.stop()
