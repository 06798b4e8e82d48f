"""Names of groups that stay the same when images are added after them: a digest of what a group begins with."""

from __future__ import annotations

import hashlib
import json


def group_id(kind: str, *first: str | int) -> str:
    """32 hex digits of the kind of the filter and of the group's first member."""
    return hashlib.sha256(json.dumps([kind, *first]).encode()).hexdigest()[:32]
