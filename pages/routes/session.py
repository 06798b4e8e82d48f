"""/ui/session: exchange a token for the cookie of a session, or give a name if no token is needed; end the session.

GET  /ui/session?next=/ui/…   the form, or a redirect to `next` if there is a session
POST /ui/session              token or name, next -> the cookie and a redirect, or the form with an error
POST /ui/session/end          removes the cookie
POST /ui/session/look         language, theme -> cookies that keep them

The guard lets these through without a token, but only from a page of this site.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from model_store.errors import BadRequest, Forbidden, Overloaded, RequestError, Unauthorized
from pages.html import (
    LANGUAGE_COOKIE,
    LANGUAGES,
    THEME_COOKIE,
    THEMES,
    page,
    prefix,
    translator_of,
)
from serve.api.bodies import received
from serve.api.problems import status_of
from serve.auth.browsers import is_https, local_path, may_lack_cookie
from serve.auth.guard import Access
from serve.auth.scopes import IDENTITY, Identity, TokenScope
from serve.auth.sessions import MAX_PERSON_CHARS, set_cookie
from serve.inference.admission import Room

MAX_FORM_BYTES, FORM_S = 8 * 1024, 10.0
MAX_FORMS, MAX_FAILURES = 32, 16
YEAR_S = 365 * 24 * 60 * 60
FAILURE_S = 0.5
"""Seconds until a failed login is answered. A right token is never delayed, so no sender can lock out others."""


def router(access: Access) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    forms = Room(MAX_FORMS, "logins are being read")
    failures = Room(MAX_FAILURES, "failed logins are being answered")

    @routes.get("/session")
    async def show(  # pyright: ignore[reportUnusedFunction]
        request: Request, next: str = "", again: bool = False
    ) -> Response:
        identity, follow = await _identity(access, request), local_path(next)
        if identity is not None and follow:
            return RedirectResponse(follow, 303)
        retry = bool(follow) and not again and may_lack_cookie(request.headers)
        return _form(access, request, follow or "", retry=retry)

    @routes.post("/session")
    async def start(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        with forms.place():
            form = await _fields(request)
        await access.update()
        text = form.get("name" if access.open else "token", "")
        follow = local_path(form.get("next", "")) or f"{prefix(request)}/"
        try:
            cookie = await access.start_session(text, is_https(request.scope, request.headers))
        except (Unauthorized, Forbidden, BadRequest) as error:
            return _form(access, request, follow, await _delayed(error, failures))
        return RedirectResponse(follow, 303, {"Set-Cookie": cookie, "Cache-Control": "no-store"})

    @routes.post("/session/end")
    async def end(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        secure = is_https(request.scope, request.headers)
        headers = {"Set-Cookie": set_cookie("", secure), "Cache-Control": "no-store"}
        if secure:  # browsers ignore it over http
            headers["Clear-Site-Data"] = '"cache"'
        return RedirectResponse(f"{prefix(request)}/session", 303, headers)

    @routes.post("/session/look")
    async def look(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        with forms.place():
            form = await _fields(request)
        answer = RedirectResponse(f"{prefix(request)}/session", 303, {"Cache-Control": "no-store"})
        for cookie, name, valid in (
            (LANGUAGE_COOKIE, "language", LANGUAGES),
            (THEME_COOKIE, "theme", THEMES),
        ):
            if form.get(name) not in valid:
                raise BadRequest(f"invalid {name}: use {', '.join(valid)}")
            answer.set_cookie(cookie, form[name], YEAR_S, path=prefix(request), samesite="lax")
        return answer

    return routes


async def _identity(access: Access, request: Request) -> Identity | None:
    """Return the sender of a request, None without a token or a session. Raises StorageUnreachable."""
    with contextlib.suppress(Unauthorized, Forbidden):
        identity = await access.check(request.headers, TokenScope.detect)
        request.scope[IDENTITY] = identity
        return identity
    return None


async def _fields(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises HTTPException if it is too large, TooSlow."""
    too_large = HTTPException(413, f"the form is over the limit of {MAX_FORM_BYTES} bytes")
    parts = received(request, FORM_S, MAX_FORM_BYTES, too_large)
    body = b"".join([part async for part in parts]).decode("utf-8", "replace")
    try:
        fields = parse_qs(body, max_num_fields=10)
    except ValueError as error:
        raise BadRequest("the form has more than 10 fields: send token, name and next") from error
    return {name: values[0] for name, values in fields.items()}


async def _delayed(error: RequestError, failures: Room) -> RequestError:
    """Return the error of a failed login after a delay, or at once that too many are delayed."""
    try:
        with failures.place():
            await asyncio.sleep(FAILURE_S)
    except Overloaded as full:
        return full
    return error


def _explained(error: RequestError | None, t: Callable[..., str]) -> str:
    match error:
        case None:
            return ""
        case Unauthorized():
            return t("This token is unknown or revoked.")
        case Forbidden():
            return t("This token lacks the scope detect, which the page requires.")
        case Overloaded():
            return t("There are too many failed logins at the moment. Try again in a few seconds.")
        case _:
            return t("A name has 1 to 64 printable characters.")


def _form(
    access: Access,
    request: Request,
    follow: str,
    error: RequestError | None = None,
    retry: bool = False,
) -> Response:
    """Return the page of the session; with `retry`, it opens itself once more, for which browsers send the cookie."""
    return page(
        request,
        "session.html",
        200 if error is None else status_of(error),
        by_name=access.open,
        max_chars=MAX_PERSON_CHARS,
        follow=follow,
        retry=f"{prefix(request)}/session?{urlencode({'again': 1, 'next': follow})}"
        if retry
        else "",
        error=_explained(error, translator_of(request)),
        is_plain_http="sec-fetch-site"
        not in request.headers,  # browsers send it to https and localhost only
    )
