"""Uploads to Resight, repeated while the server is busy or away.

Server.send(…) streams a file; a body with another digest than announced is cut off before its end, and not stored.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

import httpx2

PIECE_BYTES = 256 * 1024
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 60.0
MAX_FAILURES = 3
"""Failed answers for one image, after which it waits for the next call: it may be the cause."""
OVERLOADED = 429
"""The status of a full queue. It never counts as a failure of the image."""
LATER = frozenset((408, 425, OVERLOADED, 500, 502, 503, 504, 507))
"""Statuses after which the same request may succeed."""
STARTING = "/-/routes for available routes"
"""Text of a 404 of Ray's proxy while the cluster starts: no application is deployed yet."""
OF_ONE_IMAGE = frozenset((413, 415))
"""Statuses that concern one image, as do problems of the type image-…; others concern every request."""
log = logging.getLogger("resight_client")


class ClientError(Exception):
    """Base of all errors of this package."""


class Refused(ClientError):
    """The server refuses this image; the next one may be accepted."""


class Failed(ClientError):
    """The server fails for this image; the next one, or a later call, may succeed."""


class Changed(ClientError):
    """The file changed while it was sent; the server has stored nothing."""


class Unreachable(ClientError):
    """The server does not answer, or the folder disappeared; a later call may succeed."""


class Rejected(ClientError):
    """The token, the model, the camera, the URL, the folder or the record is wrong; no image can be sent."""


class Server:
    """A Resight at a URL. An upload is repeated for `give_up_s` seconds; pauses grow until one is answered."""

    def __init__(
        self,
        url: str,
        token: str = "",
        give_up_s: float = 600.0,
        transport: httpx2.BaseTransport | None = None,
        wait: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (token.isascii() and token.isprintable()):
            raise Rejected("invalid token: use printable ASCII characters")
        self.url = _without_userinfo(url)
        self._http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx2.Timeout(60.0, read=180.0),
            transport=transport,
        )
        self._give_up_s, self._wait, self._clock = give_up_s, wait, clock
        self._pause_s = FIRST_WAIT_S

    def close(self) -> None:
        self._http.close()

    def send(self, path: bytes, size: int, sha256: str, query: dict[str, str]) -> bool:
        """Store a file with the digest `sha256`, and return whether it is new to the server.

        Raises Changed if the file has other bytes now, OSError if it is unreadable, or another ClientError.
        """
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        end_s, failures = self._clock() + self._give_up_s, 0
        while True:
            asked_s, is_failure = 0.0, True
            try:
                answer = self._http.post(
                    "/v1/images", params=query, content=_pieces(path, size, sha256), headers=headers
                )
            except httpx2.HTTPError as error:
                reason = f"{self.url} does not answer: {error or type(error).__name__}"
                # a connection that breaks later may break because of this image
                is_failure = not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))
            else:
                is_starting = answer.status_code == 404 and STARTING in answer.text
                if answer.status_code not in LATER and not is_starting:
                    self._pause_s = FIRST_WAIT_S
                    return self._is_new(answer, sha256)
                reason = _problem(answer)[1]
                is_failure = answer.status_code != OVERLOADED and not is_starting
                asked_s = retry_after_s(answer.headers.get("retry-after", ""))
            failures += is_failure
            self._pause_s = min(MAX_WAIT_S, self._pause_s * 2)
            wait_s = max(asked_s, self._pause_s * random.uniform(0.5, 1.0))
            if failures >= MAX_FAILURES or self._clock() + wait_s > end_s:
                raise (Failed if is_failure else Unreachable)(reason)
            log.info("%s; next attempt in %.0f s", reason, wait_s)
            self._wait(wait_s)

    def _is_new(self, answer: httpx2.Response, sha256: str) -> bool:
        if not answer.is_success:
            kind, reason = _problem(answer)
            of_image = answer.status_code in OF_ONE_IMAGE or kind.startswith("image-")
            raise (Refused if of_image else Rejected)(reason)
        try:
            media = answer.json()["media"]
            stored, is_new = media["media_sha256"], bool(media["is_new"])
        except (ValueError, KeyError, TypeError) as error:
            raise Rejected(f"{self.url} does not answer as Resight does") from error
        if stored != sha256:
            raise Refused("the server received other bytes than were sent: check for a proxy")
        return is_new


def digest_of(path: bytes) -> tuple[str, int]:
    """Return SHA-256 and size of a file. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for piece in _read(file):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def retry_after_s(text: str) -> float:
    """Return the seconds of a Retry-After; 0 if it is not a number."""
    is_number = text.isascii() and text.isdigit()
    return float(text[:9]) if is_number else 0.0


def _without_userinfo(url: str) -> str:
    """Return a URL without user and password, for messages and records. Raises Rejected if it is invalid."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        parsed = httpx2.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        shown = re.sub(r"//.*@", "//", url)
        raise Rejected(f"invalid URL '{shown}': use http://HOST:PORT or https://HOST")
    return str(parsed.copy_with(userinfo=b"")).rstrip("/")


def _pieces(path: bytes, size: int, sha256: str) -> Iterator[bytes]:
    """Yield a file. The last piece is yielded only if the file has still the digest; else raise Changed."""
    digest, left, held = hashlib.sha256(), size, b""
    with open(path, "rb") as file:
        for piece in _read(file):
            digest.update(piece)
            left -= len(piece)
            if left < 0:
                break
            if held:
                yield held
            held = piece
    if left or digest.hexdigest() != sha256:
        raise Changed("the file changed while it was sent")
    yield held


def _read(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _problem(answer: httpx2.Response) -> tuple[str, str]:
    """Return kind and text of an error; the kind is empty if the server is not a Resight."""
    try:
        problem = answer.json()
        kind = str(problem["type"]).rpartition(":")[2]
        return kind, f"{answer.status_code} {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return "", f"{answer.status_code} {answer.reason_phrase}: {answer.text[:200]}"
