"""A model that lives in another pool is answered by a replica of that pool, whole requests at a time.

request -> Forward -> PassedRequest --Pools.answer--> PassedRequest.ask(app of a replica there) -> PassedAnswer
There everything happens that happens here for models that live here: limits, lanes, rollout, errors.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from fastapi import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_store.errors import DeadlinePassed, Overloaded, ResightError
from model_store.names import NAME
from serve.engine import Engine
from serve.placement import require_pool
from serve.residents import MAY_LOAD, loads_if
from serve.routes.bodies import MIB, declared_bytes, read_whole
from serve.routes.headers import TIMEOUT, deadline_of
from serve.routes.multipart import FORM_FULL_FILES, is_form
from serve.serving import Everywhere
from serve.v2.errors import refusal

UPLOADS = "/v1/images"
IN_QUERY = ("/v1/detect", "/v1/classify", UPLOADS)
"""Where the parameter `model` names it."""
_IN_PATH = re.compile(
    rf"(?:/v1/models|/v2/models|/v2/repository/models)/({NAME.pattern})(?:[@:][^/]*)?(?:/.*)?"
)
_CONTROL = re.compile(r"/v1/models/[^/]+/.+")
"""Controls and events are the rollout's and the store's: any replica answers."""
NOT_PASSED = (b"authorization", b"origin", b"cookie", b"content-length", b"transfer-encoding")
"""Who may ask was settled here; the body is whole."""


@dataclass(frozen=True, slots=True)
class PassedAnswer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class PassedRequest:
    """An HTTP request as it travels between replicas."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    may_load: bool = True

    async def ask(self, app: ASGIApp) -> PassedAnswer:
        """The app's answer; what the app itself does not answer is raised."""
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "root_path": "",
            "headers": self.headers,
            "client": None,
            "server": None,
        }
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        with loads_if(self.may_load):
            await app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent)
        return PassedAnswer(sent[0]["status"], list(sent[0]["headers"]), body)


class Pools(Everywhere, Protocol):
    """Which answer for their models."""

    async def answer(self, pool: str, request: PassedRequest) -> PassedAnswer:
        """Raises ModelNotReady."""
        ...


class Forward:
    """Middleware, behind the guard."""

    def __init__(self, app: ASGIApp, engine: Engine, pools: Pools) -> None:
        self.app, self._engine, self._pools = app, engine, pools
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = named(scope) if scope["type"] == "http" else None
        placement = self._engine.placement
        if name is None or placement.pool_of(name) == placement.own:
            await self.app(scope, receive, send)
            return
        try:
            pool = placement.pool_of(name)
            require_pool(name, pool, placement.pools)
            answer = await self._answer(Request(scope, receive), pool)
        except ResightError as error:
            await refusal(error, scope["path"])(scope, receive, send)
            return
        response = Response(answer.body, answer.status)
        response.raw_headers = answer.headers
        await response(scope, receive, send)

    @contextlib.contextmanager
    def _places(self, path: str, count: int) -> Iterator[None]:
        """Of as many as the models that live here have, but not theirs: a pool that is slow holds up itself. Uploads,
        which may wait for their rows, have places of their own.

        Raises Overloaded.
        """
        kind, bound = "kept" if path == UPLOADS else "", self._engine.args.limits.online_queue
        if self._under_way[kind] + count > bound:
            raise Overloaded(
                f"{self._under_way[kind]} images are passed on to other pools, the bound is {bound}"
            )
        self._under_way[kind] += count
        try:
            yield
        finally:
            self._under_way[kind] -= count

    async def _answer(self, request: Request, pool: str) -> PassedAnswer:
        if request.method in ("GET", "HEAD"):
            return await self._pools.answer(pool, passed(request, b"", None))
        deadline_s, limits = deadline_of(request), self._engine.args.limits
        most_mib = limits.body_mib * (FORM_FULL_FILES if is_form(request) else 1)
        declared_mib = declared_bytes(request) / MIB or most_mib  # chunked bodies may be any size
        with self._places(
            request.url.path, math.ceil(min(declared_mib, most_mib) / limits.body_mib)
        ):
            body = await read_whole(request, most_mib, limits.body_s)
            return await self._pools.answer(pool, passed(request, body, deadline_s))


def named(scope: Scope) -> str | None:
    """The model that a request is for, where a replica that has it must answer."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if path in IN_QUERY:
        (*_, ref) = parse_qs(scope["query_string"].decode("latin-1")).get("model", [""])
        found = NAME.match(ref)
        return found[0] if found else None
    match = _IN_PATH.fullmatch(path)
    return match[1] if match and not _CONTROL.fullmatch(path) else None


def passed(request: Request, body: bytes, deadline_s: float | None) -> PassedRequest:
    """With what is left of its deadline. Raises DeadlinePassed."""
    headers = [
        (k, v) for k, v in request.scope["headers"] if k not in (*NOT_PASSED, TIMEOUT.encode())
    ]
    headers.append((b"content-length", str(len(body)).encode()))
    if deadline_s is not None:
        left_ms = int((deadline_s - time.perf_counter()) * 1e3)
        if left_ms < 1:
            raise DeadlinePassed("the deadline passed before the body was here")
        headers.append((TIMEOUT.encode(), str(left_ms).encode()))
    scope: dict[str, Any] = dict(request.scope)
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return PassedRequest(
        scope["method"], path, scope["query_string"], headers, body, MAY_LOAD.get()
    )
