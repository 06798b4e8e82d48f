"""How many lines a user writes: those that are neither blank, nor comment, nor docstring.

lines(text, ".py") -> of one text; lines_of(path) -> of a file, or of a peer's folder: Python, TOML, JSON and YAML.

In a folder what the harness alone reads does not count (HARNESS), nor do requirements.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

KINDS = (".py", ".toml", ".json", ".yaml", ".yml")
HARNESS = ("peer.toml", "request.py", "prepare.py")
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def lines_of(path: Path) -> int:
    """Raises ValueError for a file of another kind."""
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.suffix in KINDS]
        return sum(lines_of(file) for file in files if file.name not in HARNESS)
    return lines(path.read_text(encoding="utf-8"), path.suffix)


def lines(text: str, kind: str) -> int:
    """`kind` is a file name's suffix. Raises ValueError for one that is not counted."""
    if kind not in KINDS:
        raise ValueError(f"lines of {kind} are not counted, only of {', '.join(KINDS)}")
    if kind == ".py":
        return len(_python(text))
    mark = "\0" if kind == ".json" else "#"  # JSON has no comments
    stripped = (line.strip() for line in text.splitlines())
    return sum(1 for line in stripped if line and not line.startswith(mark))


def _python(text: str) -> set[int]:
    """Numbers of the lines with code; each line of a string that is a value counts."""
    docstrings = _docstrings(ast.parse(text))
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE and token.start not in docstrings:
            found.update(range(token.start[0], token.end[0] + 1))
    return found


def _docstrings(tree: ast.Module) -> set[tuple[int, int]]:
    """Line and column where each begins."""
    found: set[tuple[int, int]] = set()
    for node in ast.walk(tree):
        holds = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if holds and ast.get_docstring(node, clean=False) is not None:
            found.add((node.body[0].lineno, node.body[0].col_offset))
    return found
