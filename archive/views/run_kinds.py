"""Distinguish kinds of runs: detection runs, and runs that process detections. All are rows of `runs`.

Only detection runs produce results. Only they are published as views, count as the newest run of a model, and are
awaited by `--if-needed`. Events without the column `kind` belong to detection runs.
"""

from __future__ import annotations

from typing import Any, Literal

RunKind = Literal["detect", "classify", "embed", "filter"]
DETECTS = "coalesce(kind, 'detect') = 'detect'"
"""SQL condition on rows of `runs`."""
_ARTICLES = {
    "detect": "a detection run",
    "classify": "a classify run",
    "embed": "an embed run",
    "filter": "a filter run",
}


def kind_of(event: dict[str, Any]) -> str:
    """Return the kind of a row of `runs`."""
    return str(event.get("kind") or "detect")


def in_words(kind: str) -> str:
    """Return the kind with an article, such as `a classify run`."""
    return _ARTICLES.get(kind, f"a run of kind {kind}")
