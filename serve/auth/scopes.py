"""Scopes of tokens, the sender of a request, and the time within which a change of tokens takes effect."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

STALE_S = 4.0
"""Seconds within which a revoked token is rejected and a new one accepted (`serve/auth/guard.py`)."""
IDENTITY = "resight.identity"
"""Key of the ASGI scope under which the guard puts the `Identity` of a request that requires a scope."""
OPERATOR, LOCAL = "operator", "local"
"""Names of a request with RESIGHT_TOKEN, and of one without a session while no token is needed."""


class TokenScope(StrEnum):
    """Permission of a token. No scope includes another; RESIGHT_TOKEN has all of them."""

    detect = "detect"
    upload = "upload"
    review = "review"
    admin = "admin"


@dataclass(frozen=True, slots=True)
class Identity:
    """Sender of a request: the name of a token or a person, and its scopes. `by_session`: sent as a cookie.

    `daily_mib` is the maximum that it may store in a day (UTC), in MiB; None: without a quota.
    """

    name: str
    scopes: frozenset[TokenScope]
    by_session: bool = False
    daily_mib: int | None = None
