"""constraints.txt is complete: it has everything that pyproject.toml asks for and all that is installed here."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.lock import locked

ROOT = Path(__file__).resolve().parents[2]
INSTALLERS = {"pip", "setuptools", "uv", "wheel", "resight"}
"""Not locked: they come with the environment, or are this project."""
BUILDS = {"torch"}
"""The build for CPUs has a local version (2.13.0+cpu), and hashes that the package index does not list."""


def wanted() -> list[Requirement]:
    """All that pyproject.toml names: dependencies, extras and groups."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    lists = [project["project"]["dependencies"], *extras.values(), *groups.values()]
    return [Requirement(text) for texts in lists for text in texts]


def test_each_requirement_is_locked_within_its_bounds() -> None:
    lock = locked()
    bad = {
        str(need): list(map(str, lock.get(canonicalize_name(need.name), {})))
        for need in wanted()
        if not any(v in need.specifier for v in lock.get(canonicalize_name(need.name), {}))
    }
    assert not bad, "run 'make lock'"


def test_everything_locked_has_hashes() -> None:
    lock = locked()
    assert len(lock) > 150
    assert [name for name, versions in lock.items() if not all(versions.values())] == []


def test_what_is_installed_is_what_is_locked() -> None:
    lock = locked()
    installed = {canonicalize_name(d.name): Version(d.version) for d in distributions()}
    differs = {
        name: (str(found), list(map(str, lock.get(name, {}))))
        for name, found in installed.items()
        if name not in INSTALLERS and (Version(found.public) if name in BUILDS else found) not in lock.get(name, {})
    }
    assert not differs, "installed, and not so in constraints.txt: install again, or run 'make lock'"


def test_what_makes_numbers_is_bounded_to_a_minor_version() -> None:
    makes_numbers = {
        *("numpy", "opencv-python-headless", "pillow", "simplejpeg"),
        *("onnxruntime", "onnxruntime-gpu", "torch"),
    }
    bounds = {need.name: str(need.specifier) for need in wanted() if need.name in makes_numbers}
    assert set(bounds) == makes_numbers
    assert all(re.fullmatch(r"==\d+\.\d+\.\*", bound) for bound in bounds.values()), bounds
