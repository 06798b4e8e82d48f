"""Quote strings as SQL literals, for views and lists of files, which take no parameters."""

from __future__ import annotations

import re


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def file_literal(path: str) -> str:
    """Return the literal of one file for DuckDB, which would otherwise expand *, ? and [ in it."""
    return literal(re.sub(r"([*?[])", r"[\1]", path))
