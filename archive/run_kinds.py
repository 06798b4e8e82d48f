"""Kinds of runs: those that detect, and those that work on what was detected. All are rows of `runs`.

Only a run that detects gives results of its own: it alone is published as a view, is the newest run of a model,
and is waited for by `--if-needed`. Events that are older than the column are of such runs.
"""

from __future__ import annotations

from typing import Any, Literal

RunKind = Literal["detect", "classify", "filter"]
DETECTS = "coalesce(kind, 'detect') = 'detect'"
"""Of rows of `runs`, in SQL."""
_ARTICLES = {"detect": "a detection run", "classify": "a classify run", "filter": "a filter run"}


def kind_of(event: dict[str, Any]) -> str:
    """Of one row of `runs`."""
    return str(event.get("kind") or "detect")


def in_words(kind: str) -> str:
    """`a classify run`."""
    return _ARTICLES.get(kind, f"a run of kind {kind}")
