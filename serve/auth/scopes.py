"""Scopes of tokens, and the time within which a change of tokens takes effect."""

from __future__ import annotations

from enum import StrEnum

STALE_S = 4.0
"""Seconds within which a revoked token is rejected and a new one accepted (`serve/auth/guard.py`)."""


class TokenScope(StrEnum):
    """Permission of a token. No scope includes another; an operator's token has all three."""

    detect = "detect"
    upload = "upload"
    admin = "admin"
