"""The variables that a node of cluster.yaml or KubeRay sets before `ray start`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve.node_environment import LIGHT, LOGS, node_environment

ROOT = Path(__file__).resolve().parents[2]
SET = 'node=$("$0" -m serve.node_environment) && eval "$node" && env -0'


def started(temporary: Path) -> subprocess.CompletedProcess[str]:
    """Run the words of a start command."""
    return subprocess.run(
        ["/bin/sh", "-c", SET, sys.executable],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A temporary folder like the system's."""
    folder = tmp_path / "t"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def test_a_shell_gets_the_variables_as_they_are(temporary: Path) -> None:
    done = started(temporary)
    assert done.returncode == 0, done.stderr
    found = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    folder = temporary / f"resight-{os.geteuid()}"
    assert found["RAY_TMPDIR"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    expected = node_environment(folder)
    assert "\n" in expected["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"]
    assert {name: found[name] for name in expected} == expected


def test_the_logs_of_a_node_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, number = LOGS
    monkeypatch.setenv(size, "1000")
    monkeypatch.delenv(number, raising=False)
    assert {size: "1000", number: LOGS[number]}.items() <= node_environment(tmp_path).items()


def test_a_node_whose_folder_is_not_private_does_not_start(temporary: Path) -> None:
    (temporary / f"resight-{os.geteuid()}").mkdir()
    (temporary / f"resight-{os.geteuid()}").chmod(0o777)
    done = started(temporary)
    assert done.returncode != 0
    assert "must be a folder of uid" in done.stderr
    assert "RAY_TMPDIR" not in done.stdout


def test_every_setting_that_makes_ray_light_is_one_that_ray_reads() -> None:
    ray = Path(importlib.util.find_spec("ray").submodule_search_locations[0])  # type: ignore
    sources = (*ray.rglob("*const*.py"), *ray.rglob("ray_config*.py"))
    sources += (ray / "_private" / "node.py",)
    python = "\n".join(one.read_text(errors="ignore") for one in sources)
    native = (ray / "core" / "src" / "ray" / "raylet" / "raylet").read_bytes()
    for name in LIGHT | LOGS:
        assert name in python or name.removeprefix("RAY_").encode() in native, name
