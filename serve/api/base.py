"""Base of every HTTP API of Resight: errors as problem JSON, strict query parameters, and its schema with scopes.

The valid query parameters of a route are those that its endpoint declares; others, and repeated ones, are answered 400.
GET /openapi.json and GET /docs need no scripts and no external resources.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.responses import HTMLResponse, JSONResponse

from model_store.errors import BadRequest
from model_store.names import MAX_QUOTED
from serve.api import problems
from serve.api.bodies import MIB, PROBLEMS
from serve.api.limits import MaxRequests, PacedAnswers
from serve.api.schemas import Problem
from serve.auth.browsers import COOKIE
from serve.auth.guard import Access, Guard, scope_of
from serve.inference.admission import Room
from serve.pages import render
from serve.settings import Limits

ENDING = "resight.ending"
"""Key of the ASGI scope under which a host may put a future that is done as soon as the process is to end."""


def base_api(title: str, summary: str) -> FastAPI:
    """Return an application with those features and no other routes."""
    api = FastAPI(
        title=title,
        summary=summary,
        openapi_url=None,  # `serve.api.base` serves the schema and the page
        docs_url=None,
        dependencies=[Depends(require_known_parameters)],
    )
    problems.install(api)
    _add_docs(api)
    return api


def protect(
    api: FastAPI, access: Access | None, origins: Sequence[str], room: Room, limits: Limits | None, prefix: str = ""
) -> None:
    """Add the guard, and around it the bounds of answers and of concurrent requests. Every application calls this once.

    `access`, `origins` and `prefix` are those of the guard (None: everyone); `room` has the places of requests.
    `limits` are the defaults if None.
    """
    limits = limits or Limits()
    api.add_middleware(Guard, access=access or Access(), origins=origins, prefix=prefix)
    api.add_middleware(PacedAnswers, max_bytes=limits.answers_mib * MIB, within_s=limits.answer_s)
    api.add_middleware(MaxRequests, room=room)


E = TypeVar("E", bound=Callable[..., Any])
_PARAMETERS: WeakKeyDictionary[Callable[..., Any], tuple[str, ...] | None] = WeakKeyDictionary()
"""Valid parameters of each endpoint, read from its route at the first query; None: any parameter is ignored."""


def any_query(endpoint: E) -> E:
    """Let an endpoint ignore all query parameters: health checks, as load balancers add their own, and 404 and 405."""
    _PARAMETERS[endpoint] = None
    return endpoint


async def require_known_parameters(request: Request) -> None:
    """Raise BadRequest for a query parameter that is unknown or sent more than once."""
    if not request.scope["query_string"]:
        return
    endpoint = request.scope["endpoint"]
    if endpoint not in _PARAMETERS:
        route = request.scope["route"]
        names = (field.alias for field in get_flat_params(route.dependant))  # headers are not among them
        _PARAMETERS[endpoint] = tuple(name for name in names if name not in route.param_convertors)
    valid = _PARAMETERS[endpoint]
    if valid is None:
        return
    sent = [name for name, _ in request.query_params.multi_items()]
    for name in sent:
        if name not in valid:
            raise BadRequest(_unknown(name[:MAX_QUOTED], valid))
        if sent.count(name) > 1:
            raise BadRequest(f"query parameter '{name}' is sent {sent.count(name)} times: send it once")


def _unknown(name: str, valid: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, valid, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    listed = f"valid parameters: {', '.join(valid)}" if valid else "this path takes none"
    return f"unknown query parameter '{name}': {hint}{listed}"


def describe_scopes(api: FastAPI, prefix: str = "") -> None:
    """Add the scope of each route, and the answer to an invalid parameter, to the schema; `prefix` is the guard's."""
    original = api.openapi

    def openapi() -> dict[str, Any]:
        schema = original()
        parts = schema.setdefault("components", {})
        parts.setdefault("schemas", {}).setdefault("Problem", Problem.model_json_schema())
        access = "see docs/operate/access.md"
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": access},
            "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": access},
        }
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                scope = scope_of(method.upper(), prefix + path)
                operation["security"] = [{"bearer": [scope]}, {"session": [scope]}] if scope else []
                operation["responses"].pop("422", None)  # FastAPI's default; Resight answers 400
                if scope:
                    operation["responses"].setdefault("400", PROBLEMS[400])
                for status in (401, 403) if scope and not path.startswith("/v2") else ():
                    operation["responses"].setdefault(str(status), PROBLEMS[status])
        return schema

    api.openapi = openapi


def _add_docs(api: FastAPI) -> None:
    def schema_of(request: Request) -> dict[str, Any]:
        return request.app.openapi() | {"servers": [{"url": request.scope["root_path"] or "/"}]}

    @api.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> JSONResponse:
        return JSONResponse(schema_of(request))

    @api.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        schema = schema_of(request)
        root = request.scope["root_path"].rstrip("/")
        text = render("serve/api/docs.html", title=schema["info"]["title"], root=root, schema=schema)
        style = text.partition("<style>")[2].partition("</style>")[0]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        return HTMLResponse(text, headers={"Content-Security-Policy": f"{policy}; style-src 'sha256-{digest}'"})
