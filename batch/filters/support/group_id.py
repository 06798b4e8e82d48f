"""Stable ids of groups: a digest of the first member, so that images added later do not change it."""

from __future__ import annotations

import hashlib
import json


def group_id(kind: str, *first: str | int) -> str:
    """Return 32 hex digits, a digest of the filter's kind and the group's first member."""
    return hashlib.sha256(json.dumps([kind, *first]).encode()).hexdigest()[:32]
