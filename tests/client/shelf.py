"""A stand-in for POST /v1/images that keeps each content once, and a station that sends to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from resight_client import Options, Summary, send_folder
from resight_client.server import Server

OLD_S = 1_700_000_000


class Clock:
    """A clock that only waits move."""

    def __init__(self) -> None:
        self.now_s, self.waits_s = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        self.now_s += seconds


class Shelf(httpx2.BaseTransport):
    """Digests by camera. `answers` are sent first; an exception among them is raised in place of an answer."""

    def __init__(self) -> None:
        self.kept: dict[str, list[str]] = {}
        self.answers = deque[httpx2.Response | Exception]()
        self.asked = list[str]()
        self.problems: dict[str, httpx2.Response] = {}
        self.on_store: Callable[[], None] = lambda: None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return self.answer(request)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.raw_path.decode())
        if self.answers:
            answer = self.answers.popleft()
            if isinstance(answer, Exception):
                raise answer
            return answer
        digest, size = hashlib.sha256(), 0
        for piece in request.stream:  # type: ignore[union-attr]
            assert len(piece) <= 256 * 1024
            digest.update(piece)
            size += len(piece)
        assert size == int(request.headers["content-length"])
        sha256 = digest.hexdigest()
        if sha256 in self.problems:
            return self.problems[sha256]
        kept = self.kept.setdefault(request.url.params.get("camera", ""), [])
        is_new = sha256 not in kept
        if is_new:
            kept.append(sha256)
        self.on_store()
        media = {"media_sha256": sha256, "is_new": is_new}
        return httpx2.Response(201 if is_new else 200, json={"media": media})


def problem(status: int, kind: str, **headers: str) -> httpx2.Response:
    body = json.dumps({"type": f"urn:resight:{kind}", "detail": f"the {kind}"})
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, content=body, headers=fields)


class Station:
    """A card with files, a record, and a clock without waits."""

    def __init__(self, place: Path) -> None:
        self.card, self.record, self.shelf = place / "card", place / "state" / "record", Shelf()
        self.card.mkdir()
        self.clock = Clock()

    def put(self, name: str, data: bytes = b"", at_s: float = OLD_S) -> Path:
        path = self.card / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data or name.encode())
        os.utime(path, (at_s, at_s))
        return path

    def send(self, transport: httpx2.BaseTransport | None = None, **more: Any) -> Summary:
        args = {"url": "http://resight", "model": "deer", "camera": "north", "record": self.record}
        options = Options(**(args | more))
        server = Server(options.url, "secret", options.give_up_s, transport or self.shelf, self.clock.wait, self.clock)
        return send_folder(self.card, options, server)

    @property
    def stored(self) -> list[str]:
        return self.shelf.kept.get("north", [])


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
