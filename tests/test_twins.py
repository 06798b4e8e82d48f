"""Each call of `shared` names tests that assert the same without ../shared, and those exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TEXTS = [path.read_text() for path in sorted(Path(__file__).parent.rglob("test_*.py"))]
USERS = [text for text in TEXTS if re.search(r"import .*\bshared\b", text)]


def calls_of_shared(tree: ast.AST) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func) == "shared"]


def test_each_call_names_its_twins() -> None:
    calls = [call for text in USERS for call in calls_of_shared(ast.parse(text))]
    assert len(calls) > 10
    assert [ast.unparse(call) for call in calls if len(call.args) < 2] == []


def test_each_twin_is_one_test_that_needs_no_file() -> None:
    for twin in {name for text in USERS for name in re.findall(r'"(test_\w+(?:\[\w+)?)"', text)}:
        name, _, case = twin.partition("[")
        texts = [text for text in TEXTS if f"def {name}(" in text]
        tests = [n for text in texts for n in ast.walk(ast.parse(text)) if getattr(n, "name", "") == name]
        assert len(tests) == 1, twin
        cases = "".join(map(ast.unparse, tests[0].decorator_list)).lower()  # type: ignore[attr-defined]
        assert case in cases if case else not calls_of_shared(tests[0]), twin
