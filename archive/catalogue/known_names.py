"""Refuse names of cameras, deployments and locations that the catalogue lacks: a misspelt one must not find nothing.

require_known("camera", "nroth", ["north"]) -> BadRequest: unknown camera 'nroth'; did you mean 'north'?
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from model_store.errors import BadRequest

MAX_NAMES = 50


def require_known(kind: str, name: str, names: Sequence[str]) -> None:
    """Raise BadRequest for a name that is not one of `names`, with a suggestion."""
    if name not in names:
        raise BadRequest(f"unknown {kind} '{name}'; {suggested(name, names)}")


def suggested(name: str, names: Sequence[str]) -> str:
    """Suggest the name that is most similar to `name`, or list the names if none is."""
    near = get_close_matches(name, names)
    if near:
        return f"did you mean '{near[0]}'?"
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"available: {', '.join(names[:MAX_NAMES]) or 'none'}{more}"
