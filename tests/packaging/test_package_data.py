"""Files beside the modules that a wheel must contain, and its licence."""

from __future__ import annotations

import tomllib
from pathlib import Path

import resight

ROOT = Path(resight.__file__).parent


def test_each_file_beside_the_modules_is_package_data() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packaged, present = set[Path](), set[Path]()
    for package in ("archive", "batch", "cli", "model_store", "pages", "serve"):
        for pattern in setuptools["package-data"].get(package, []):
            packaged |= set((ROOT / package).glob(pattern))
        present |= {
            file for file in (ROOT / package).rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")
        }
    assert packaged == present
    assert ROOT / "archive" / "views" / "views.sql" in packaged


def test_both_distributions_state_the_licence_of_the_repository() -> None:
    assert (ROOT / "LICENSE").read_text().split()[:4] == ["Apache", "License", "Version", "2.0,"]
    for folder in (ROOT, ROOT / "client"):
        assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
