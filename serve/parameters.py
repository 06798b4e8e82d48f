"""Query parameters: a route refuses those it does not know, and those that are sent twice.

FastAPI(dependencies=[Depends(known_only)]): what a route knows is what its endpoint declares
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from model_store.errors import BadRequest
from model_store.names import MAX_QUOTED

E = TypeVar("E", bound=Callable[..., Any])
_KNOWN: WeakKeyDictionary[Callable[..., Any], tuple[str, ...] | None] = WeakKeyDictionary()
"""Endpoint to its parameters, read from its route at the first query; None for any parameters."""


def any_query(endpoint: E) -> E:
    """Let an endpoint ignore the query: health checks, to which load balancers add their own, and 404 and 405."""
    _KNOWN[endpoint] = None
    return endpoint


async def known_only(request: Request) -> None:
    """Raise BadRequest for a query parameter that the route does not know, or that is sent more than once."""
    if not request.scope["query_string"]:
        return
    endpoint = request.scope["endpoint"]
    if endpoint not in _KNOWN:
        _KNOWN[endpoint] = _names(request.scope["route"])
    known = _KNOWN[endpoint]
    if known is None:
        return
    sent = [name for name, _ in request.query_params.multi_items()]
    for name in sent:
        if name not in known:
            raise BadRequest(_unknown(name[:MAX_QUOTED], known))
        if sent.count(name) > 1:
            raise BadRequest(
                f"query parameter '{name}' is sent {sent.count(name)} times: send it once"
            )


def _names(route: APIRoute) -> tuple[str, ...]:
    """Return the names of its parameters that are not in the path; headers are read by hand (routes/headers.py)."""
    names = (field.alias for field in get_flat_params(route.dependant))
    return tuple(name for name in names if name not in route.param_convertors)


def _unknown(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    takes = f"known here: {', '.join(known)}" if known else "this path takes none"
    return f"unknown query parameter '{name}': {hint}{takes}"
