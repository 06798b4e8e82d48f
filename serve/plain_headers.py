"""Answers 400 to headers that are no UTF-8, before Ray's replica sees them: it decodes some, and says 500.

Ray calls `middlewares` in every process that listens, by the name of it in `serve/cluster.py`.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.problems import problem


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
    return [Middleware(PlainHeaders)]


def _undecodable(scope: Scope) -> str | None:
    """The name of the first one."""
    for name, value in scope["headers"]:
        if not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError:
                return name.decode("latin-1")
    return None
