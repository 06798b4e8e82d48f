"""/ui/session: the page of the session. Its JSON gives a session for a token, or for a name where it is enough.

POST /ui/v1/session         token or name -> the cookie
POST /ui/v1/session/end     removes the cookie
POST /ui/v1/session/look    language, theme -> cookies that keep them

The guard lets these through without a token, but only from a page of this site.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from model_store.errors import BadRequest, Forbidden, Overloaded, RequestError, Unauthorized
from model_store.frozen import Frozen
from pages.html import LANGUAGE_COOKIE, THEME_COOKIE, page, prefix
from serve.api.bodies import SmallBodyRoute
from serve.auth.browsers import MAX_PERSON_CHARS, is_https, local_path, may_lack_cookie, set_cookie
from serve.auth.guard import Access
from serve.auth.scopes import IDENTITY, Identity, TokenScope
from serve.inference.admission import Room

MAX_FAILURES = 16
YEAR_S = 365 * 24 * 60 * 60
FAILURE_S = 0.5
"""Seconds until a failed login is answered. A right token is never delayed, so no sender can lock out others."""
WORDS: dict[type[RequestError], str] = {
    Unauthorized: "This token is unknown or revoked.",
    Forbidden: "This token lacks the scope detect, which the page requires.",
    Overloaded: "There are too many failed logins at the moment. Try again in a few seconds.",
    BadRequest: "A name has 1 to 64 printable characters.",
}
"""Messages to visitors about the errors of a login."""


class LoginRoute(SmallBodyRoute):
    max_bytes = 8 * 1024


class Login(Frozen):
    token: str = ""
    name: str = ""


class Look(Frozen):
    language: Literal["en", "de"]
    theme: Literal["auto", "light", "dark"]


def router(access: Access) -> APIRouter:
    routes = APIRouter(route_class=LoginRoute, tags=["session"])
    failures = Room(MAX_FAILURES, "failed logins are being answered")

    @routes.get("/session", include_in_schema=False)
    async def show(request: Request, next: str = "", again: bool = False) -> Response:
        identity, follow = await _identity(access, request), local_path(next)
        if identity is not None and follow:
            return RedirectResponse(follow, 303)
        retry = bool(follow) and not again and may_lack_cookie(request.headers)
        query = urlencode({"again": 1, "next": follow or ""})
        return page(
            request,
            "session.html",
            by_name=access.open,
            max_chars=MAX_PERSON_CHARS,
            follow=follow or f"{prefix(request)}/",
            # the page opens itself once more, for which browsers send the cookie
            retry=f"{prefix(request)}/session?{query}" if retry else "",
            # browsers send this header to https and localhost only
            is_plain_http="sec-fetch-site" not in request.headers,
        )

    @routes.post("/v1/session")
    async def start(request: Request, body: Login) -> JSONResponse:
        """Start a session; the answer sets its cookie."""
        await access.update()
        text, secure = body.name if access.open else body.token, is_https(request.scope, request.headers)
        try:
            cookie = await access.start_session(text, secure)
        except (Unauthorized, Forbidden, BadRequest) as error:
            answer = await _delayed(error, failures)
            words = next(words for kind, words in WORDS.items() if isinstance(answer, kind))
            field = "name" if access.open else "token"
            raise type(answer)(words, answer.retry_after_s, {field: words}) from error
        return _answer({"Set-Cookie": cookie})

    @routes.post("/v1/session/end")
    async def end(request: Request) -> JSONResponse:
        """End the session of this browser."""
        secure = is_https(request.scope, request.headers)
        headers = {"Set-Cookie": set_cookie("", secure)}
        if secure:  # browsers ignore it over http
            headers["Clear-Site-Data"] = '"cache"'
        return _answer(headers)

    @routes.post("/v1/session/look")
    async def look(request: Request, body: Look) -> JSONResponse:
        """Keep the language and the colours in cookies."""
        answer = _answer({})
        for cookie, value in ((LANGUAGE_COOKIE, body.language), (THEME_COOKIE, body.theme)):
            answer.set_cookie(cookie, value, YEAR_S, path=prefix(request), samesite="lax")
        return answer

    return routes


def _answer(headers: dict[str, str]) -> JSONResponse:
    return JSONResponse({"changed": True}, headers=headers | {"Cache-Control": "no-store"})


async def _identity(access: Access, request: Request) -> Identity | None:
    """Return the sender of a request, None without a token or a session. Raises StorageUnreachable."""
    with contextlib.suppress(Unauthorized, Forbidden):
        identity = await access.check(request.headers, TokenScope.detect)
        request.scope[IDENTITY] = identity
        return identity
    return None


async def _delayed(error: RequestError, failures: Room) -> RequestError:
    """Return the error of a failed login after a delay, or at once that too many are delayed."""
    try:
        with failures.place():
            await asyncio.sleep(FAILURE_S)
    except Overloaded as full:
        return full
    return error
