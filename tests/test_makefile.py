"""`make` in a checkout of any name, with a python that only writes down how it was called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("wild life/jörg #1", "it's", 'say "deer"', "a;b", "`id`", "[prod]", "$HOME", "x" * 130)
PYTHON = f"""#!{sys.executable}
import json, os, sys
with open("called.jsonl", "a") as file:
    file.write(json.dumps([sys.argv[1:], os.environ["RESIGHT_HOME"]]) + "\\n")
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("name", NAMES)
def test_every_command_of_make_runs_in_a_checkout_of_any_name(tmp_path: Path, name: str) -> None:
    checkout = tmp_path / name
    (checkout / ".venv" / "bin").mkdir(parents=True)
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, checkout)
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key != "RESIGHT_HOME"}
    for target in ("demo", "down", "check", "fmt", "bench-quick"):
        done = subprocess.run(
            ["make", target], cwd=checkout, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in (checkout / "called.jsonl").read_text().splitlines()]
    assert {home for _, home in calls} == {f"{checkout}/.resight"}
    words = [call for call, _ in calls]
    assert ["-m", "examples.demo", "--port", "8000"] in words
    assert ["-m", "resight", "down"] in words
    assert ["-m", "pyright"] in words
    assert any(call[:3] == ["-m", "pip", "install"] for call in words)
