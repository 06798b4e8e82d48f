"""Render HTML pages: Jinja2 templates in the folders of the code that fills them; every text is escaped.

A template extends `serve/page.html`: no scripts, no network requests, also for small screens.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: object) -> str:
    """Return the page of a template, e.g. "serve/tune/report.html", filled with these values."""
    return _TEMPLATES.get_template(template).render(values)
