"""`make bench` needs only what it installs: the packages of users and those of the group `bench`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.fixtures_local import ROOT

IMPORT = """
import importlib, sys
from unittest.mock import MagicMock
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(sys.argv[1:]):
            raise ModuleNotFoundError(f"{name} is not of the group bench")
sys.meta_path.insert(0, Absent())
sys.path[:0] = ["benchmarks", "."]
sys.modules |= {name: MagicMock() for name in ("matplotlib", "mlperf_loadgen")}  # of the group, and not of `dev`
importlib.import_module("harness").need = lambda *names: None
for step in importlib.import_module("bench").STEPS:
    importlib.import_module(step.script)
"""


def installed_for(requirements: Iterable[str]) -> set[str]:
    """Return the names of distributions that these requirements install, by the metadata of those that are here."""
    todo, seen = [Requirement(text) for text in requirements], set[tuple[str, frozenset[str]]]()
    while todo:
        wanted = todo.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            needed = [Requirement(text) for text in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:
            continue
        todo += [n for n in needed if not n.marker or any(n.marker.evaluate({"extra": e}) for e in ("", *extras))]
    return {name for name, _ in seen}


def test_each_step_imports_with_the_packages_of_the_group_bench() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = config["project"], config["dependency-groups"]
    extras = project["optional-dependencies"]
    here = installed_for([*project["dependencies"], *extras["cpu"], *extras["s3"], *groups["bench"]])
    absent = installed_for(groups["dev"]) - here
    assert "hypothesis" in absent
    names = metadata.packages_distributions().items()
    modules = [module for module, owners in names if {canonicalize_name(owner) for owner in owners} <= absent]
    done = subprocess.run([sys.executable, "-c", IMPORT, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
