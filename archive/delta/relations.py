"""Define relations in files of SQL, and create those that a statement uses.

Relations(file) --create(sql, statement)--> the views, tables and macros that it names, after those that they read
A file has one `create or replace …;` after another, each with the relations that it reads after `from` or `join`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import duckdb

_CREATED = re.compile(r"create or replace temp (?:view|macro|table) (\w+)")
_USED = re.compile(r"\b(?:from|join) (\w+)|\b(\w+)\(")
_COMMENT = re.compile(r"--.*")


class Relations:
    """Statements of some files by the name that each creates; read at the first use."""

    def __init__(self, *files: Path, **more: str) -> None:
        """Set the files; `more` are other statements by name."""
        self.files, self._more = files, more

    @cached_property
    def statements(self) -> dict[str, str]:
        text = "".join(_COMMENT.sub("", file.read_text()) for file in self.files)
        return {_CREATED.findall(part)[0]: part for part in text.split(";\n") if part.strip()} | self._more

    def named_in(self, statement: str) -> list[str]:
        """Return the relations with a name that is a word of the statement, in any case."""
        words = set(re.findall(r"\w+", statement.lower()))
        return [name for name in self.statements if name in words]

    def needed_by(self, *names: str) -> list[str]:
        """Return `names` and all that they read, each after what it reads; also names without a statement here."""
        needed: dict[str, None] = {}

        def add(name: str) -> None:
            if name not in needed:
                for other in self._used(name):
                    add(other)
                needed[name] = None

        for name in names:
            add(name)
        return list(needed)

    def create(self, sql: duckdb.DuckDBPyConnection, *names: str) -> None:
        """Create the relations `names`, and before them those that they read; they are temporary, so no other
        connection has them.
        """
        for name in self.needed_by(*names):
            if name in self.statements:
                sql.execute(self.statements[name])

    def _used(self, name: str) -> Iterator[str]:
        for relation, function in _USED.findall(self.statements.get(name, "")):
            other = relation or function
            if other != name and (relation or other in self.statements):
                yield other
