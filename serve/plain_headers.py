"""Middlewares in front of Ray's own code: headers that are not UTF-8 are answered with 400.

Ray decodes some headers, and would answer 500 to those.

Ray calls `middlewares` in every process that listens, by its name in `serve/node_environment.py`.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.problems import problem
from serve.unavailable import Unavailable


class PlainHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wrong = _undecodable(scope) if scope["type"] == "http" else None
        if wrong is None:
            await self.app(scope, receive, send)
        else:
            answer = problem(400, "BadRequest", f"the header '{wrong}' is not UTF-8")
            await answer(scope, receive, send)


def middlewares() -> list[Middleware]:
    return [Middleware(Unavailable), Middleware(PlainHeaders)]


def _undecodable(scope: Scope) -> str | None:
    """The name of the first one."""
    for name, value in scope["headers"]:
        if not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError:
                return name.decode("latin-1")
    return None
