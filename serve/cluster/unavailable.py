"""Answer of HAProxy, and of Ray's fallback proxy behind it, if no replica answers."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_store.errors import SOON_S
from serve.api.problems import problem, retry_after


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
