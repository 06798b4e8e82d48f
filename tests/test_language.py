"""Docstrings, comments, errors and help of the product are plain technical English, as far as a machine can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.language import CODE, DOCUMENTS, ROOT, breaches


@pytest.mark.parametrize("name", [*CODE, *DOCUMENTS])
def test_the_language_rules_hold(name: str) -> None:
    path = ROOT / name
    files = [path] if path.is_file() else sorted([*path.rglob("*.py"), *path.rglob("*.md")])
    found = [f"{file}:{b.line}: {b.rule}: {b.text}" for file in files for b in breaches(file)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('"""Whether it is ready."""', "begin with a verb or a noun"),
        ('def f():\n    """Who asks first goes first."""', "begin with a verb or a noun"),
        ("raise ValueError(f'{x} is no time')", "is not a, invalid, unknown"),
        ("x = 1  # nobody needs it", "name it"),
        (f'"""Return {"one " * 30}."""', "words in a sentence"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, text: str, rule: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(text)
    assert any(rule in breach.rule for breach in breaches(file))
