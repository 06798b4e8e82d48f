"""Replicas for hostile tests: four places, bodies up to 2 MiB; in this process, or behind a real server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from serve.api.app import build_http_api
from serve.cluster.ports import preferred_or_free
from serve.inference.engine import Engine
from serve.settings import DetectArgs, Limits
from tests.fixtures_local import motion_store, photo
from tests.serve.idle_rollouts import IdleRollouts

CAT = photo("cat")
PLACES = 4
TIMEOUT_S = 10.0
DETECT = "/v1/detect?model=blobs"
INFER = "/v2/models/blobs/infer"
CANARY = "/v1/models/blobs/canary"


def engine_in(place: Path, **limits: Any) -> Engine:
    """Over a store with two versions of the small model `blobs`."""
    motion_store(place, "1", "2")
    given = Limits.model_validate({"online_queue": PLACES, "body_mib": 2, **limits})
    engine = Engine(DetectArgs(models=str(place), workers=1, limits=given))
    asyncio.run(engine.aliases.refresh())
    return engine


def api_of(engine: Engine) -> FastAPI:
    return build_http_api(engine, rollouts=IdleRollouts())


def tried(place: Path) -> Iterator[FastAPI]:
    """For a fixture: an API that must have all its places back at the end."""
    engine = engine_in(place)
    yield api_of(engine)
    assert engine.admission.images.taken == 0
    engine.stop()


def client(api: FastAPI) -> httpx2.AsyncClient:
    """Sees a 500 as its callers do."""
    transport = httpx2.ASGITransport(api, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://resight")


@dataclass(frozen=True)
class Live:
    """A real server around an engine, in a thread."""

    port: int
    engine: Engine

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S)

    def says(self, *parts: bytes, shut: bool = False) -> int | None:
        """The status of the first answer; None when the connection is closed without one."""
        with self.connect() as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                if shut:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has answered already, and hung up
            return status_of(connection)

    def free(self) -> int:
        return PLACES - self.engine.admission.images.taken

    def becomes_free(self, places: int) -> None:
        ends = time.monotonic() + TIMEOUT_S
        while self.free() != places:
            assert time.monotonic() < ends, self.free()
            time.sleep(0.01)


def status_of(connection: socket.socket) -> int | None:
    received = b""
    while b"\r\n\r\n" not in received:
        try:
            part = connection.recv(65536)
        except ConnectionError:
            return None
        if not part:
            return None
        received += part
    return int(received[9:12])


def unread(port: int, request: bytes) -> socket.socket:
    """A connection that has asked, seen the first byte of the answer, and reads no further."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(TIMEOUT_S)
    connection.connect(("127.0.0.1", port))
    connection.sendall(request)
    assert connection.recv(1) == b"H"
    return connection


def rest(connection: socket.socket) -> int:
    """How many bytes come until the server closes the connection."""
    size = 0
    while part := connection.recv(1 << 20):
        size += len(part)
    return size


@contextlib.contextmanager
def listening(api: FastAPI, root_path: str = "") -> Iterator[int]:
    """A real server in a thread, at the port."""
    port = preferred_or_free(0)
    server = uvicorn.Server(uvicorn.Config(api, "127.0.0.1", port, log_config=None, root_path=root_path))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join(TIMEOUT_S)


def serving(engine: Engine) -> Iterator[Live]:
    """For a fixture: up until it is asked for a second one."""
    with listening(api_of(engine)) as port:
        yield Live(port, engine)
