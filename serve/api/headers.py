"""Request headers, and the middlewares of Ray's HTTP: for headers that are not UTF-8, and if no replica answers.

Ray calls `middlewares` in every process that serves HTTP, by its name in `serve/node_environment.py`.
"""

from __future__ import annotations

import re
import secrets
import time

from fastapi import Request
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_store.errors import SOON_S, BadRequest
from serve.api.problems import REQUEST_ID, problem, retry_after


class PlainHeaders:
    """Middleware that answers 400 to a request with a header that is not UTF-8, and sends one id with a response.

    Ray decodes some headers, and would answer 500. It adds the header x-request-id also to a response that has it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_one_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                ids = [header for header in headers if header[0].lower() == REQUEST_ID.encode()]
                kept = [header for header in headers if header not in ids]
                message = {**message, "headers": kept + ids[:1]}
            await send(message)

        for name, value in scope["headers"] if scope["type"] == "http" else ():
            try:
                value.decode()
            except UnicodeDecodeError:
                answer = problem(400, "BadRequest", f"the header '{name.decode('latin-1')}' is not UTF-8")
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send_one_id)


def unavailable() -> Response:
    """Return a 503 with the time after which to repeat the request."""
    detail = "no replica answered; another one takes over within seconds: send the request again"
    return problem(503, "NoReplica", detail, retry_after(SOON_S))


class Unavailable:
    """Middleware that answers `unavailable` if Ray sends nothing, raises, or sends a 500 as plain text.

    Ray does any of these if the replica of a request ended. A 500 of the application is problem JSON. Exceptions are
    still propagated to the server, which logs them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = replaced = False

        async def send_or_replace(message: Message) -> None:
            nonlocal started, replaced
            started = True
            if message["type"] == "http.response.start" and _is_rays_error(message):
                replaced = True
                await unavailable()(scope, receive, send)
            elif not replaced:
                await send(message)

        try:
            await self.app(scope, receive, send_or_replace)
        finally:
            if scope["type"] == "http" and not started:
                await unavailable()(scope, receive, send)


def _is_rays_error(start: Message) -> bool:
    kinds = [value for name, value in start.get("headers", ()) if name.lower() == b"content-type"]
    return start["status"] == 500 and all(kind.startswith(b"text/plain") for kind in kinds)


def middlewares() -> list[Middleware]:
    return [Middleware(Unavailable), Middleware(PlainHeaders)]


TIMEOUT = "x-request-timeout-ms"
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_MILLISECONDS = re.compile(r"[0-9]{1,9}")
MAX_TIMEOUT_MS = 600_000


def request_id_of(request: Request) -> str:
    """Return the sender's id if it is printable and short, else a new one. The log and the response contain it."""
    given = request.headers.get(REQUEST_ID, "")
    request.scope[REQUEST_ID] = given if _ID.fullmatch(given) else secrets.token_hex(8)
    return request.scope[REQUEST_ID]


def deadline_of(request: Request) -> float | None:
    """Return the deadline on time.perf_counter's clock, or None without the header. Raises BadRequest."""
    text = request.headers.get(TIMEOUT)
    if text is None:
        return None
    if not _MILLISECONDS.fullmatch(text) or not 0 < int(text) <= MAX_TIMEOUT_MS:
        raise BadRequest(f"{TIMEOUT} must be whole milliseconds from 1 to {MAX_TIMEOUT_MS}")
    return time.perf_counter() + int(text) / 1e3
