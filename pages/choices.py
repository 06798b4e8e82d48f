"""Suggestions for forms: the cameras and labels of the archive, the most frequent first."""

from __future__ import annotations

from archive.views.image_index import By, ImageFilter
from archive.views.views import NAME, PRODUCTION
from model_store.errors import BadRequest
from pages.context import Context

MAX_CHOICES = 200


def known_cameras(context: Context, view: str = PRODUCTION) -> list[str]:
    return _most(context, view, "camera")


def labels_in_use(context: Context, view: str = PRODUCTION) -> list[str]:
    """Return the labels that the view shows."""
    return _most(context, view, "label")


def _most(context: Context, view: str, by: By) -> list[str]:
    if context.tables.existing("media") is None:
        return []
    if not NAME.fullmatch(view):
        raise BadRequest(f"invalid name of a view '{view[:80]}'")
    bars = context.index.histogram(ImageFilter(view=view), by)
    return [value for value, _ in bars if value][:MAX_CHOICES]
