"""Strings of SQL, for views and lists of files, which take no parameters."""

from __future__ import annotations

import re


def literal(words: str) -> str:
    return "'" + words.replace("'", "''") + "'"


def file_literal(path: str) -> str:
    """Return the literal of one file to read: DuckDB would expand *, ? and [ in it."""
    return literal(re.sub(r"([*?[])", r"[\1]", path))
