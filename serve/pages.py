"""Render HTML pages: Jinja2 templates in the folders of the code that fills them; every text is escaped.

A template extends `serve/page.html`: no scripts, no network requests, also for small screens.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(folder: Path) -> Environment:
    """Return the templates in a folder."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


_TEMPLATES = templates(Path(__file__).parents[1])


def render(template: str, **values: object) -> str:
    """Return the page of a template, e.g. "serve/tune/report.html", filled with these values."""
    return _TEMPLATES.get_template(template).render(values)
