"""A web server with scripted answers, and the model store of the tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2

from serve.antenna.fetch import ImageFetcher
from serve.api.app import build_http_api
from serve.auth.guard import Access
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import motion_store
from tests.model_store.classifiers import colour_store

Script = Callable[[asyncio.StreamWriter], Any]


def both_models(place: Path) -> Path:
    """Add a detector and a classifier in production, and return the folder."""
    motion_store(place, "1")
    colour_store(place, "1").set_alias("colours", "production", "1")
    return place


def file_of(body: bytes, **headers: str) -> bytes:
    """Return a whole HTTP answer with a body."""
    fields = {"Content-Length": str(len(body)), "Connection": "close"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body


class Station:
    """Files by path at a port of 127.0.0.1: bytes of an answer, or a script that writes one."""

    def __init__(self, files: Mapping[str, bytes | Script]) -> None:
        self.files, self.asked, self.port = files, list[bytes](), 0
        self._answering = set[asyncio.Task[Any]]()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Station]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._answering:
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._answering.add(task)
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        file = self.files[head.split()[1].decode().partition("?")[0]]
        with contextlib.suppress(ConnectionError):
            if isinstance(file, bytes):
                writer.write(file)
                await writer.drain()
            else:
                await file(writer)
        writer.close()

    def url(self, path: str) -> str:
        return f"http://pictures.test:{self.port}{path}"

    def arguments(self, **more: Any) -> DetectArgs:
        """Return arguments that list this server."""
        hosts = [f"pictures.test:{self.port}"]
        return DetectArgs(image_hosts=hosts, image_networks=["127.0.0.0/8"], **more)


async def at_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@contextlib.asynccontextmanager
async def antenna_client(engine: Engine, station: Station, token: str = "") -> AsyncIterator[httpx2.AsyncClient]:
    fetcher = ImageFetcher(station.arguments(limits=engine.args.limits), at_loopback)
    api = build_http_api(engine, Access(token), fetcher=fetcher)
    transport = httpx2.ASGITransport(api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as client:
        yield client
