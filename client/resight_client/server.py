"""Requests to Resight, repeated while the server is busy or away.

Server.send(…) streams a file; a body with another digest than announced is cut off before its end, and not stored.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, BinaryIO

import httpx2

PIECE_BYTES = 256 * 1024
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 60.0
MAX_RETRY_AFTER_S = 3600.0
LATER = frozenset((408, 425, 429, 500, 502, 503, 504, 507))
"""Statuses after which the same request may succeed."""
OF_ONE_IMAGE = frozenset((413, 415))
"""Statuses that concern one image, as do problems of the type image-…; others concern every request."""
MAX_SERVER_ERRORS = 3
"""Attempts with status 500, after which the image is refused: it may be the cause."""


class ClientError(Exception):
    """Base of all errors of this package."""


class Refused(ClientError):
    """The server refuses this image; the next one may be accepted."""


class Rejected(ClientError):
    """The server refuses every request of this kind: the token, the model or the camera is wrong."""


class Unreachable(ClientError):
    """The server did not accept a request within the time."""


class Changed(ClientError):
    """The file changed while it was sent; the server has stored nothing."""


class Server:
    """A Resight at a URL. A request is repeated until nothing succeeded for `give_up_s` seconds."""

    def __init__(
        self,
        url: str,
        token: str = "",
        give_up_s: float = 600.0,
        transport: httpx2.BaseTransport | None = None,
        wait: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        notify: Callable[[str], None] = lambda text: None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise Rejected(f"invalid URL '{url}': use http://HOST:PORT or https://HOST")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx2.Timeout(60.0, read=180.0)
        try:
            self._http = httpx2.Client(
                base_url=url, headers=headers, timeout=timeout, transport=transport
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise Rejected(f"invalid URL '{url}': {error}") from error
        self.url = url
        self._give_up_s, self._wait, self._clock, self._notify = give_up_s, wait, clock, notify
        self._succeeded_at_s = clock()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._http.close()

    def only_detector(self) -> str:
        """Return the name of the only detector of the server. Raises Rejected if there are several, or none."""
        models = self._request("GET", "/v1/models", {})["models"]
        names = [m["name"] for m in models if any(v["kind"] == "detector" for v in m["versions"])]
        if len(names) != 1:
            raise Rejected(f"name the model; detectors of the server: {', '.join(names) or 'none'}")
        return str(names[0])

    def detect(self, image: bytes, model: str) -> dict[str, Any]:
        """Return the answer of POST /v1/detect."""
        return self._request("POST", "/v1/detect", {"model": model}, lambda: image)

    def send(self, path: bytes, size: int, sha256: str, model: str, camera: str) -> dict[str, Any]:
        """Store a file with the digest `sha256`, and return the answer of POST /v1/images.

        Raises Refused, Rejected, Unreachable, and Changed if the file has other bytes now; OSError if it is unreadable.
        """
        query = {"model": model, **({"camera": camera} if camera else {})}
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        answer = self._request(
            "POST", "/v1/images", query, lambda: _pieces(path, size, sha256), headers
        )
        if answer["media"]["media_sha256"] != sha256:
            raise Refused(
                "the server received other bytes than were sent: does a proxy change them?"
            )
        return answer

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Callable[[], Any] = lambda: None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        pause_s, server_errors = FIRST_WAIT_S, 0
        while True:
            asked_s = 0.0
            try:
                answer = self._http.request(
                    method, path, params=query, content=body(), headers=headers
                )
            except httpx2.HTTPError as error:
                reason = f"{self.url} does not answer: {error or type(error).__name__}"
            else:
                if answer.is_success:
                    self._succeeded_at_s = self._clock()
                    return _json(answer)
                kind, reason = _problem(answer)
                if answer.status_code not in LATER:
                    of_image = answer.status_code in OF_ONE_IMAGE or kind.startswith("image-")
                    raise (Refused if of_image else Rejected)(reason)
                server_errors += answer.status_code == 500
                if server_errors >= MAX_SERVER_ERRORS:
                    raise Refused(reason)
                asked_s = retry_after_s(answer.headers.get("retry-after", ""))
            pause_s = min(MAX_WAIT_S, pause_s * 2)
            wait_s = max(asked_s, pause_s * random.uniform(0.5, 1.0))
            if self._clock() + wait_s - self._succeeded_at_s > self._give_up_s:
                raise Unreachable(reason)
            self._notify(f"{reason}; next attempt in {wait_s:.0f} s")
            self._wait(wait_s)


def detect(
    image: str | os.PathLike[str] | bytes,
    url: str,
    model: str,
    token: str = "",
    give_up_s: float = 60.0,
) -> dict[str, Any]:
    """Detect in an image, a path or its bytes. Return the answer of POST /v1/detect.

    Raises ClientError: Refused for an image that is damaged, Unreachable if the server does not answer in time.
    """
    if not isinstance(image, bytes):
        with open(image, "rb") as file:
            image = file.read()
    with Server(url, token, give_up_s) as server:
        return server.detect(image, model)


def digest_of(path: bytes) -> tuple[str, int]:
    """Return SHA-256 and size of a file. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for piece in _read(file):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


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


def retry_after_s(text: str) -> float:
    """Return the seconds of a Retry-After, a number or a date; 0 if it is missing or invalid."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
        left_s = (moment - datetime.now(timezone.utc)).total_seconds()
    except (TypeError, ValueError, IndexError):
        return 0.0
    return min(max(left_s, 0.0), MAX_RETRY_AFTER_S)


def _problem(answer: httpx2.Response) -> tuple[str, str]:
    """Return kind and text of an error; the kind is empty if the server is not a Resight."""
    try:
        problem = answer.json()
        kind = str(problem["type"]).rpartition(":")[2]
        return kind, f"{answer.status_code} {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return "", f"{answer.status_code} {answer.reason_phrase}: {answer.text[:200]}"


def _json(answer: httpx2.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Rejected(f"{answer.url} does not answer as Resight does")
    return found
