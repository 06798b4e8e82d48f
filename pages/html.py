"""Render the page's templates: English or German, with every text escaped.

page(request, "images.html", camera="north") -> HTML response
In templates:
    t("English text with {n}", n=3)  translates
    explain(detail)                  translates a message of the server
    url("/images")                   adds the prefix /ui
    number(1234.5, ",.1f")           formats a number
    static("page.css")               names a file by the digest of its folder, so that browsers keep it for ever
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from string import Formatter
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from model_store.errors import ModelNotFound
from serve.api.base import any_query
from serve.auth.scopes import Identity
from serve.pages import templates

_FOLDER = Path(__file__).parent
STATIC = _FOLDER / "static"
LANGUAGES = ("en", "de")
LANGUAGE_COOKIE, THEME_COOKIE = "resight_language", "resight_theme"
_SIGNS = {"en": str.maketrans({",": "\u202f"}), "de": str.maketrans({",": "\u202f", ".": ",", "%": "\u202f%"})}
THEMES = ("auto", "light", "dark")
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_TEMPLATES = templates(_FOLDER / "templates")


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a template as a response. It gets `values`, and the names that are set here."""
    language = _language_of(request)
    theme = request.cookies.get(THEME_COOKIE, "auto")
    text = _TEMPLATES.get_template(template).render(
        request=request,
        t=translator_of(request),
        url=lambda path: prefix(request) + path,
        static=lambda name: f"{prefix(request)}/static/{static_digest()}/{name}",
        language=language,
        messages=messages(language),
        problems=problems(language),
        explain=partial(explain, language),
        number=partial(number, language),
        theme=theme if theme in THEMES else "auto",
        identity=identity_of(request),
        **values,
    )
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def identity_of(request: Request) -> Identity:
    """Return who sends the request; without any scope for paths that need none, such as the login."""
    return request.scope.get("resight.identity") or Identity("", frozenset())


def prefix(request: Request) -> str:
    """Return the path under which the page is mounted: /ui."""
    return str(request.scope.get("root_path", ""))


def _language_of(request: Request) -> str:
    """Return the language that the visitor chose, else the first of Accept-Language that exists, else English."""
    accepted = request.headers.get("accept-language", "").lower().split(",")
    wanted = [request.cookies.get(LANGUAGE_COOKIE, ""), *(word.strip()[:2] for word in accepted)]
    return next((word for word in wanted if word in LANGUAGES), LANGUAGES[0])


def translator_of(request: Request) -> Callable[..., str]:
    """Return t(text, **values): the text in the visitor's language, with {values}.

    A text without a translation stays English.
    """
    language = _language_of(request)
    translated, texts = messages(language), _Texts(language)

    def t(text: str, **values: object) -> str:
        return texts.vformat(translated.get(text, text), (), values)

    return t


def number(language: str, value: float | None, spec: str = ",") -> str:
    """Return a number in the signs of the language: 1 234.5 %, in German 1 234,5 %; None is –."""
    return "\u2013" if value is None else format(value, spec).translate(_SIGNS[language])


class _Texts(Formatter):
    """Format numbers with a specification, such as {share:.1f}, in the signs of a language."""

    def __init__(self, language: str) -> None:
        self._language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec and isinstance(value, (int, float)):
            return number(self._language, value, format_spec)
        return str(super().format_field(value, format_spec))


@cache
def messages(language: str) -> dict[str, str]:
    """Return the translations of a language, by the English text."""
    return _read(f"{language}.json")


@cache
def problems(language: str) -> list[tuple[str, str]]:
    """Return patterns of messages of the server, and their translations with {0}, {1} … for the groups.

    They are stored as templates, in an order in which the more specific ones come first.
    """
    found: list[tuple[str, str]] = []
    for english, other in _read(f"{language}.problems.json").items():
        pattern = re.sub(r"\\{\w+\\}", "(.*?)", re.escape(english))
        groups = {name: f"{{{i}}}" for i, name in enumerate(re.findall(r"\{(\w+)\}", english))}
        found.append((pattern, other.format(**groups)))
    return found


def explain(language: str, text: str) -> str:
    """Return a message of the server in a language if it is translated; `explain` of static/page.js does the same."""
    for pattern, words in problems(language):
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return words.format(*(explain(language, part) for part in found.groups()))
    name, colon, reason = text.partition(": ")  # of a field
    return f"{name}: {explain(language, reason)}" if colon else text


def _read(name: str) -> dict[str, str]:
    file = _FOLDER / "locales" / name
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


@cache
def _static_files() -> dict[str, bytes]:
    """Return the files of `static/` by their names."""
    files = sorted(path for path in STATIC.rglob("*") if path.suffix in _TYPES)
    return {path.relative_to(STATIC).as_posix(): path.read_bytes() for path in files}


@cache
def static_digest() -> str:
    """Return a digest over all files of `static/`."""
    return hashlib.sha256(repr(list(_static_files().items())).encode()).hexdigest()[:16]


def static_router() -> APIRouter:
    """Return the route of the files of `static/`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/static/{digest}/{name:path}")
    @any_query
    async def static(digest: str, name: str) -> Response:
        data = _static_files().get(name)
        if data is None:
            raise ModelNotFound(f"unknown file '{name[:200]}' of the page")
        current = digest == static_digest()
        keep = "public, max-age=31536000, immutable" if current else "no-store"
        headers = {"Cache-Control": keep, "X-Content-Type-Options": "nosniff"}
        return Response(data, headers=headers, media_type=_TYPES[Path(name).suffix])

    return routes
