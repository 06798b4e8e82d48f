"""Words as a string of SQL, for views and lists of files, which take no parameters."""

from __future__ import annotations


def literal(words: str) -> str:
    return "'" + words.replace("'", "''") + "'"
