"""The image and the stack name files, commands and variables that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve.settings import Settings
from tests.support import cli_page

ROOT = Path(__file__).resolve().parent.parent
STACK: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
IMAGE = (ROOT / "Dockerfile").read_text()
COMMANDS = {name for name, _ in cli_page.commands()}


def own_services() -> list[dict[str, Any]]:
    return [service for service in STACK["services"].values() if "build" in service]


def test_files_that_are_mounted_exist() -> None:
    mounts = [mount for service in STACK["services"].values() for mount in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(files) >= 4
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert set(STACK["volumes"]) == {m.split(":")[0] for m in mounts if not m.startswith((".", "$"))}


def test_what_the_image_copies_is_sent_to_its_build() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    packages = re.findall(r'"(\w+)\*"', (ROOT / "pyproject.toml").read_text())
    assert {*packages, "pyproject.toml", "constraints.txt", "examples/models", "resight.py"} <= sent
    assert [name for name in sent if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", [".gitignore", ".rayignore"])
def test_the_file_of_secrets_stays_on_this_machine(name: str) -> None:
    """Jobs and nodes of cluster.yaml get the checkout, without what these files name."""
    assert ".env" in (ROOT / name).read_text().splitlines()


def test_its_tool_has_the_version_of_the_makefile() -> None:
    [version] = re.findall(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"uv=={version} " in IMAGE


def test_variables_are_those_of_the_settings() -> None:
    known = {f"RESIGHT_{name.upper()}" for name in Settings.model_fields}
    named = {name for service in own_services() for name in service["environment"] if name.startswith("RESIGHT_")}
    assert named | {"RESIGHT_HOME"} <= known
    assert "RESIGHT_HOME=" in IMAGE


def test_commands_exist() -> None:
    script = STACK["services"]["prepare"]["command"][0]
    asked = [shlex.split(line.split("resight ", 1)[1]) for line in script.splitlines() if line.startswith("resight ")]
    assert {" ".join(words[:2]) for words in asked} <= COMMANDS
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("listed", "promotes"), [("echo", True), ("echo production", False), ("exit 7", False)], ids=str
)
def test_an_interrupted_first_start_is_done_again(tmp_path: Path, listed: str, promotes: bool) -> None:
    """A list that fails is no empty one: `restart: on-failure` repeats it."""
    for name in ("python", "resight"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls; [ "$2" != list ] || {listed}\n')
        (tmp_path / name).chmod(0o755)
    prepare = STACK["services"]["prepare"]
    words = [*prepare["entrypoint"], *prepare["command"]]
    done = subprocess.run(words, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False)
    assert done.returncode == int(listed.removeprefix("exit ")) if "exit" in listed else not done.returncode
    assert ("models promote ssdlite-coco@1" in (tmp_path / "calls").read_text()) is promotes


def test_nothing_of_it_has_the_rights_of_an_administrator() -> None:
    assert re.search(r"^USER \d+$", IMAGE, re.MULTILINE)
    for service in own_services():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
