"""Docstrings, comments, errors and help of the product are plain technical English, as far as a machine can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.language import CODE, DOCUMENTS, ROOT, breaches, files_of


@pytest.mark.parametrize("name", [*CODE, *DOCUMENTS])
def test_the_language_rules_hold(name: str) -> None:
    files = files_of(ROOT / name)
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.js", "let a = 1; // nobody needs it"),
        ("a.js", "/** Return it, meanwhile. */"),
        ("a.html", "{# nobody\nneeds it #}"),
        ("a.sql", "select 1 -- nobody needs it"),
    ],
)
def test_comments_of_scripts_templates_and_statements_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert len(breaches(tmp_path / name)) == 1
    (tmp_path / name).write_text('let a = "http://nobody.example"')
    assert breaches(tmp_path / name) == []
