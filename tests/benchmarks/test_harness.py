"""What a benchmark lacks is said before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import need

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py"))


def test_missing_modules_are_named_with_the_line_that_installs_them() -> None:
    need("json")
    with pytest.raises(SystemExit, match=r"^not_there, nor_this cannot.*\n  uv pip install .*bench"):
        need("json", "not_there", "nor_this")


def test_every_script_that_draws_looks_for_matplotlib_first() -> None:
    drawing = [path for path in SCRIPTS if "with picture(" in path.read_text()]
    assert drawing
    for path in drawing:
        text = path.read_text()
        assert '"matplotlib")' in text.partition(" facts(")[0], path.name
