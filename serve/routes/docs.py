"""GET /openapi.json and GET /docs: the schema, and a page that shows it without scripts and other hosts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

Schema = Mapping[str, Any]
_STYLE = """
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1000px;padding:1rem;color:#1b1b1b;background:#fff}
h2{font-size:1.2rem;margin-top:2rem}details{border-top:1px solid #ccc;padding:.4rem 0}summary{cursor:pointer}
code{font-size:.9em;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%;margin:.5rem 0}
caption{text-align:left;color:#555}td{padding:.2rem .6rem .2rem 0;vertical-align:top;border-top:1px solid #ddd}
td:first-child{width:14rem;overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}a{color:#8ab4ff}caption{color:#aaa}
td,details{border-color:#444}}
"""
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    f"{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/openapi.json")
    async def openapi(request: Request) -> JSONResponse:
        return JSONResponse(_schema(request))

    @routes.get("/docs")
    async def docs(request: Request) -> HTMLResponse:
        headers = {"Content-Security-Policy": _POLICY}
        return HTMLResponse(page(_schema(request)), headers=headers)

    return routes


def _schema(request: Request) -> dict[str, Any]:
    return request.app.openapi() | {"servers": [{"url": request.scope["root_path"] or "/"}]}


def page(schema: Schema) -> str:
    """Return the OpenAPI schema as HTML: each operation, and each object in it."""
    title = escape(schema["info"]["title"])
    root = schema["servers"][0]["url"].rstrip("/")
    operations = (
        _operation(method.upper(), root + path, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    )
    objects = (
        f"<details><summary><code>{escape(name)}</code></summary>{_object(name, found)}</details>"
        for name, found in schema.get("components", {}).get("schemas", {}).items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f'<p>{escape(schema["info"].get("summary", ""))}. For programs: <a href="openapi.json">openapi.json</a></p>'
        f"<h2>Requests</h2>{''.join(operations)}<h2>Objects</h2>{''.join(objects)}</body></html>\n"
    )


def _operation(method: str, path: str, operation: Schema) -> str:
    scopes = [scope for one in operation.get("security", ()) for scope in one["bearer"]]
    token = f"<p>token scope: <code>{escape(', '.join(scopes))}</code></p>" if scopes else ""
    parameters = (
        (
            f"{one['name']} ({one['in']}{', required' if one.get('required') else ''})",
            one["schema"],
            one,
        )
        for one in operation.get("parameters", ())
    )
    bodies = (
        (kind, content["schema"], content["schema"])
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
    )
    answers = (
        (status, next(iter(answer.get("content", {}).values()), {}).get("schema", {}), answer)
        for status, answer in operation["responses"].items()
    )
    tables = _table("parameters", parameters) + _table("body", bodies) + _table("answers", answers)
    return (
        f"<details><summary><code>{method} {escape(path)}</code> "
        f"{escape(operation.get('description') or operation['summary'])}</summary>"
        f"{token}{tables}</details>"
    )


def _object(name: str, schema: Schema) -> str:
    """Return the inside of its element, which a link to it opens."""
    fields = ((field, of, of) for field, of in schema.get("properties", {}).items())
    described = f'<p id="{escape(name)}">{escape(schema.get("description", ""))}</p>'
    return described + (_table("fields", fields) or f"<p>{_type(schema)}</p>")


def _table(caption: str, rows: Iterable[tuple[str, Schema, Schema]]) -> str:
    """Rows of a name, its schema, and what describes it; nothing without rows."""
    body = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_words(schema, about)}</td></tr>"
        for name, schema, about in rows
    )
    return f"<table><caption>{caption}</caption>{body}</table>" if body else ""


def _words(schema: Schema, about: Schema) -> str:
    default = schema.get("default")
    words = [_type(schema)]
    if default not in (None, ""):
        words.append(f"default <code>{escape(str(default))}</code>")
    if "description" in about:
        words.append(escape(about["description"]))
    return "; ".join(words)


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(map(_type, schema[several]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("format", schema.get("type", "anything"))
    words = kind if isinstance(kind, str) else " or ".join(kind)
    limits = f" {schema.get('minimum', '')}…{schema.get('maximum', '')}".removesuffix(" …")
    return escape(words + limits)
