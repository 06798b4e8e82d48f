"""Answer an error that a middleware raises, in front of the routes."""

from __future__ import annotations

from fastapi.responses import Response

from model_store.errors import ResightError
from serve.api import problems
from serve.api.v2 import errors as v2


def refusal(error: ResightError, path: str) -> Response:
    """Return the response in the format of the path: that of /v2, else a problem."""
    return v2.of_error(error) if path.startswith("/v2") else problems.of_error(error)
