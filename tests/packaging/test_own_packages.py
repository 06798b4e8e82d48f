"""A module of somebody else that has the name of one of our packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import resight

ROOT = Path(resight.__file__).parent


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("module", ["batch.reprocess", "batch.classify", "batch.filters", "resight"])
def test_a_module_in_the_current_folder_is_named(tmp_path: Path, module: str) -> None:
    (tmp_path / "serve.py").write_text("raise SystemExit('this is not Resight')\n")
    done = run(tmp_path, "-m", module, "--help")
    assert done.returncode == 1
    assert f"the package 'serve' of Resight is hidden by {tmp_path}/serve.py" in done.stderr


def test_a_package_without_init_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "serve").mkdir()
    assert run(tmp_path, "-m", "resight", "--help").returncode == 0


def test_without_the_current_folder_on_the_path_it_starts(tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text("raise SystemExit('this is not Resight')\n")
    done = run(tmp_path, "-P", "-m", "batch.reprocess", "--help")
    assert done.returncode == 0, done.stderr


def test_our_own_packages_pass() -> None:
    resight.require_own_packages()
