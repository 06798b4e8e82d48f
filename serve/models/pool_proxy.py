"""Forward whole HTTP requests to the pool of their model, if it is placed in another pool.

request -> PoolProxy -> ForwardedRequest --Pools.answer--> app of a replica there -> ForwardedAnswer

That replica applies the same limits, lanes, rollout and errors as for its own requests.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from urllib.parse import parse_qs

from fastapi import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_store.errors import DeadlinePassed, ResightError
from model_store.names import NAME
from serve.api.bodies import MIB, declared_bytes, read_whole
from serve.api.headers import TIMEOUT, deadline_of
from serve.api.multipart import FORM_FULL_FILES, is_form
from serve.api.problems import of_error
from serve.auth.scopes import IDENTITY, Identity
from serve.inference.engine import Engine
from serve.models.pools import Pools, require_pool
from serve.models.resolver import MAY_LOAD, loads_if

UPLOADS = "/v1/images"
IN_QUERY = ("/v1/detect", "/v1/classify", "/v1/embed", UPLOADS)
"""Paths with the model in the query parameter `model`."""
_IN_PATH = re.compile(rf"(?:/v1/models|/v2/models|/v2/repository/models)/({NAME.pattern})(?:[@:][^/]*)?(?:/.*)?")
_CONTROL = re.compile(r"/v1/models/[^/]+/.+")
"""Controls and events use the rollout and the store, so any replica answers them."""
NOT_FORWARDED = (b"authorization", b"origin", b"cookie", b"content-length", b"transfer-encoding")
"""Headers that are not forwarded: the request is already authorised, and its body is complete."""


@dataclass(frozen=True, slots=True)
class ForwardedAnswer:
    """An HTTP response as it travels between replicas."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def response(self) -> Response:
        response = Response(self.body, self.status)
        response.raw_headers = self.headers
        return response


@dataclass(frozen=True, slots=True)
class ForwardedRequest:
    """An HTTP request as it travels between replicas."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    may_load: bool = True
    sender: Identity | None = None

    async def send_to(self, app: ASGIApp) -> ForwardedAnswer:
        """Call an ASGI application with this request and return its response. Raises what the application raises."""
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
        if self.sender is not None:
            scope[IDENTITY] = self.sender
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        with loads_if(self.may_load):
            await app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent)
        return ForwardedAnswer(sent[0]["status"], list(sent[0]["headers"]), body)


class PoolProxy:
    """Middleware behind the guard that forwards requests for models of other pools."""

    def __init__(self, app: ASGIApp, engine: Engine, pools: Pools) -> None:
        self.app, self._engine, self._pools = app, engine, pools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = model_of(scope) if scope["type"] == "http" else None
        placement = self._engine.placement
        if name is None or placement.pool_of(name) == placement.own:
            await self.app(scope, receive, send)
            return
        try:
            require_pool(name, pool := placement.pool_of(name), placement.pools)
            answer = await self._answer(Request(scope, receive), pool)
        except ResightError as error:
            await of_error(error, scope["path"])(scope, receive, send)
            return
        await answer.response()(scope, receive, send)

    async def _answer(self, request: Request, pool: str) -> ForwardedAnswer:
        if request.method in ("GET", "HEAD"):
            return await self._pools.answer(pool, forwarded(request, b"", None))
        deadline_s, limits = deadline_of(request), self._engine.args.limits
        max_mib = limits.body_mib * (FORM_FULL_FILES if is_form(request) else 1)
        declared_mib = declared_bytes(request.headers) / MIB or max_mib  # chunked bodies may be any size
        # limited apart from local images, so that a slow pool cannot use up this replica's places
        admission = self._engine.admission
        room = admission.forwarded_uploads if request.url.path == UPLOADS else admission.forwarded
        with room.place(math.ceil(min(declared_mib, max_mib) / limits.body_mib)):
            body = await read_whole(request, max_mib, limits.body_s)
            return await self._pools.answer(pool, forwarded(request, body, deadline_s))


def model_of(scope: Scope) -> str | None:
    """Return the model of a request that must be answered by a replica of its pool, else None."""
    path = path_of(scope)
    if path in IN_QUERY:
        (*_, ref) = parse_qs(scope["query_string"].decode("latin-1")).get("model", [""])
        name = NAME.match(ref)
        return name[0] if name else None
    match = _IN_PATH.fullmatch(path)
    return match[1] if match and not _CONTROL.fullmatch(path) else None


def forwarded(request: Request, body: bytes, deadline_s: float | None) -> ForwardedRequest:
    """Return the request to forward, with the remaining time as its timeout. Raises DeadlinePassed."""
    headers = [(k, v) for k, v in request.scope["headers"] if k not in (*NOT_FORWARDED, TIMEOUT.encode())]
    headers.append((b"content-length", str(len(body)).encode()))
    if deadline_s is not None:
        left_ms = int((deadline_s - time.perf_counter()) * 1e3)
        if left_ms < 1:
            raise DeadlinePassed("the deadline passed before the body was read")
        headers.append((TIMEOUT.encode(), str(left_ms).encode()))
    query: bytes = request.scope["query_string"]
    sender = request.scope.get(IDENTITY)
    return ForwardedRequest(request.method, path_of(request.scope), query, headers, body, MAY_LOAD.get(), sender)


def path_of(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))
