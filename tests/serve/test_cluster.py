"""Which processes are those of a cluster, with and without their parent."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from serve import cluster
from serve.node_environment import LOGS
from serve.ray_head import LIGHT
from serve.settings import Settings

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cluster, "private_path", lambda: tmp_path)
    return Settings()


def test_only_rays_own_processes_are_taken_for_orphans_and_ended(
    settings: Settings, tmp_path: Path
) -> None:
    temp_dir = str(cluster.folder_of(settings))
    program = tmp_path / "ray_haproxy.py"
    program.write_text(SLEEP)
    ours = subprocess.Popen([sys.executable, str(program), "-f", f"{temp_dir}/haproxy.cfg"])
    pager = subprocess.Popen([sys.executable, "-c", SLEEP, f"{temp_dir}/logs/raylet.out"])
    other = subprocess.Popen([sys.executable, str(program), "-f", "/elsewhere/haproxy.cfg"])
    try:
        found = cluster._orphans(settings)
        assert [process.pid for process in found] == [ours.pid]
        assert cluster.stop(settings)
        assert not psutil.pid_exists(ours.pid)
        assert psutil.Process(pager.pid).is_running()
        assert psutil.Process(other.pid).is_running()
        assert not cluster.stop(settings)
    finally:
        for process in (ours, pager, other):
            process.kill()
            process.wait()


@pytest.mark.parametrize("clock_s", [0.0, 3600.0])
def test_a_cluster_is_known_by_its_command_whatever_the_clock_is_set_to(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock_s: float
) -> None:
    """The time of creation of a process moves with the system's clock."""
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created(self) + clock_s)
    temp_dir = str(cluster.folder_of(settings))
    program = tmp_path / "ray_start.py"
    program.write_text(SLEEP)
    head, other = (
        subprocess.Popen([sys.executable, str(program), f"--temp-dir={folder}"])
        for folder in (f"{temp_dir}/ray", "/elsewhere/ray")
    )
    settings.home_path.mkdir()
    try:
        for process, known in ((head, True), (other, False)):
            state = cluster.ClusterState(process.pid, "127.0.0.1", 1, "g", "d", temp_dir)
            (settings.home_path / "cluster.json").write_text(json.dumps(asdict(state)))
            assert cluster.read_state(settings) == (state if known else None)
        head.kill()
        assert cluster.read_state(settings) is None
    finally:
        for process in (head, other):
            process.kill()
            process.wait()


def test_every_setting_that_makes_ray_light_is_one_that_ray_reads() -> None:
    ray = Path(importlib.util.find_spec("ray").submodule_search_locations[0])  # type: ignore
    sources = (*ray.rglob("*const*.py"), *ray.rglob("ray_config*.py"))
    sources += (ray / "_private" / "node.py",)
    python = "\n".join(one.read_text(errors="ignore") for one in sources)
    native = (ray / "core" / "src" / "ray" / "raylet" / "raylet").read_bytes()
    for name in LIGHT | LOGS:
        assert name in python or name.removeprefix("RAY_").encode() in native, name
