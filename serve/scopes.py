"""What a token may do, and how soon a change of tokens takes effect."""

from __future__ import annotations

from enum import StrEnum

STALE_S = 4.0
"""Within it, a revoked token is refused, and a new one taken (`serve/access.py`)."""


class Scope(StrEnum):
    """What a token may do. None includes another; an operator's token has all three."""

    detect = "detect"
    upload = "upload"
    admin = "admin"
