"""Choices for forms: the cameras and labels of a view with their images, the most frequent first."""

from __future__ import annotations

from typing import Any, Literal

from archive.views.image_filter import ImageFilter
from archive.views.views import NAME, PRODUCTION, Views
from model_store.errors import BadRequest
from pages.context import Context

MAX_CHOICES = 200
Bars = list[tuple[str, int]]


def known_cameras(context: Context, view: str = PRODUCTION) -> list[str]:
    return [name for name, _ in _counted(context, view, "camera")][:MAX_CHOICES]


def labels_in_use(context: Context, view: str = PRODUCTION) -> list[str]:
    """Return the labels that the view shows."""
    return [name for name, _ in _counted(context, view, "label")][:MAX_CHOICES]


def counted_choices(context: Context, view: str) -> dict[str, Any]:
    """Return the choices of `templates/filters.html`."""
    columns: tuple[tuple[str, Literal["camera", "label"]], ...] = (("cameras", "camera"), ("labels", "label"))
    counted = {
        name: [(value, f"{value} ({images})") for value, images in _counted(context, view, column)]
        for name, column in columns
    }
    views = Views(context.tables.url).names()
    return counted | {"views": views, "view_choices": [(name, name) for name in views]}


def _counted(context: Context, view: str, column: Literal["camera", "label"]) -> Bars:
    if context.tables.existing("media") is None:
        return []
    if not NAME.fullmatch(view):
        raise BadRequest(f"invalid name of a view '{view[:80]}'")
    return [bar for bar in context.index.histogram(ImageFilter(view=view), column) if bar[0]]
