"""Limits of containers, on files in both layouts and, if permitted on this machine, in a real control group."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from model_store import machine
from model_store.errors import ModelNotReady
from model_store.names import VersionId
from serve.models.loaded_models import require_memory
from serve.settings import DetectArgs

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30


@pytest.fixture
def large_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine of 64 cores and 256 GiB, as affinity and psutil report it in a container."""
    memory = psutil.virtual_memory()._replace(total=256 * GIB, available=250 * GIB)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write the files of proc and of control groups below `root`."""
    for name, text in (files | {"proc/self/cgroup": groups}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def pod(root: Path, cpu_max: str = "400000 100000", memory_max: str = str(8 * GIB)) -> Path:
    """Version 2 in a container with a cgroup namespace."""
    files = {
        "sys/fs/cgroup/cpu.max": cpu_max,
        "sys/fs/cgroup/memory.max": memory_max,
        "sys/fs/cgroup/memory.current": str(3 * GIB),
        "sys/fs/cgroup/memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\nactive_file 4096",
    }
    return system(root, "0::/", files)


def test_a_pod_of_4_cores_and_8_gib_on_a_large_host(tmp_path: Path, large_host: None) -> None:
    root = pod(tmp_path)
    assert machine.usable_cores(root) == 4
    assert machine.usable_memory_bytes(root) == 8 * GIB
    assert machine.free_memory_bytes(root) == 7 * GIB  # 3 used, 2 of them cache that can be dropped


def test_without_limits_the_host_counts(tmp_path: Path, large_host: None) -> None:
    root = pod(tmp_path, "max 100000", "max")
    assert machine.usable_cores(root) == 64
    assert machine.usable_memory_bytes(root) == 256 * GIB
    assert machine.free_memory_bytes(root) == 250 * GIB
    assert machine.usable_cores(tmp_path / "a system without control groups") == 64


@pytest.mark.parametrize(("cpu_max", "cores"), [("50000 100000", 1), ("250000 100000", 3)])
def test_a_part_of_a_core_counts_as_one(tmp_path: Path, large_host: None, cpu_max: str, cores: int) -> None:
    assert machine.usable_cores(pod(tmp_path, cpu_max)) == cores


def test_the_lowest_limit_of_all_ancestors_holds(tmp_path: Path, large_host: None) -> None:
    files = {
        "sys/fs/cgroup/a.slice/cpu.max": "200000 100000",
        "sys/fs/cgroup/a.slice/memory.max": str(GIB),
        "sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000",
        "sys/fs/cgroup/a.slice/b.scope/memory.max": str(2 * GIB),
    }
    root = system(tmp_path, "0::/a.slice/b.scope", files)
    assert machine.usable_cores(root) == 2
    assert machine.usable_memory_bytes(root) == GIB


@pytest.mark.parametrize("at", ["docker/4f2a/", ""])
def test_version_1(tmp_path: Path, large_host: None, at: str) -> None:
    """Docker without a cgroup namespace mounts the container's own group as the root."""
    files = {
        f"sys/fs/cgroup/cpu,cpuacct/{at}cpu.cfs_quota_us": "400000",
        f"sys/fs/cgroup/cpu,cpuacct/{at}cpu.cfs_period_us": "100000",
        f"sys/fs/cgroup/memory/{at}memory.limit_in_bytes": str(8 * GIB),
        f"sys/fs/cgroup/memory/{at}memory.usage_in_bytes": str(3 * GIB),
        f"sys/fs/cgroup/memory/{at}memory.stat": f"inactive_file 1\ntotal_inactive_file {2 * GIB}",
        "sys/fs/cgroup/memory/memory.unrelated": "",
    }
    groups = "9:cpu,cpuacct:/docker/4f2a\n8:memory:/docker/4f2a\n1:name=systemd:/docker/4f2a"
    root = system(tmp_path, groups, files)
    assert machine.usable_cores(root) == 4
    assert machine.usable_memory_bytes(root) == 8 * GIB
    assert machine.free_memory_bytes(root) == 7 * GIB


def test_version_1_without_limits(tmp_path: Path, large_host: None) -> None:
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096),
    }
    root = system(tmp_path, "9:cpu,cpuacct:/\n8:memory:/", files)
    assert machine.usable_cores(root) == 64
    assert machine.usable_memory_bytes(root) == 256 * GIB
    assert machine.free_memory_bytes(root) == 250 * GIB


def test_the_processor_has_its_model_name_or_any_other(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "proc" / "cpuinfo"
    assert machine.cpu_name(tmp_path)
    cpuinfo.parent.mkdir()
    cpuinfo.write_text("cpu family\t: 25\nmodel name\t: EPYC: 2\n\nmodel name\t: other\n")
    assert machine.cpu_name(tmp_path) == "EPYC: 2"


@contextlib.contextmanager
def control_group(controller: str, limits: dict[str, str]) -> Iterator[Path]:
    """Create a real group of version 1, or of version 2 if the controller is enabled for it."""
    for top in (Path("/sys/fs/cgroup") / controller, Path("/sys/fs/cgroup")):
        group = top / f"resight-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            known = {name: value for name, value in limits.items() if (group / name).exists()}
            for name, value in known.items():
                (group / name).write_text(value)
            if known:
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip(f"this machine lets no {controller} control group be made")


def in_group(group: Path, expression: str) -> int:
    """Evaluate an expression of `model_store.machine` in a process of that group."""
    program = f"from model_store.machine import *; print({expression})"
    done = subprocess.run(
        ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', group, sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_a_real_cpu_quota() -> None:
    quota = {"cpu.max": "100000 100000", "cpu.cfs_quota_us": "100000"}
    with control_group("cpu", quota) as group:
        assert in_group(group, "usable_cores()") == 1


def test_a_real_memory_limit() -> None:
    limit = str(512 << 20)
    with control_group("memory", {"memory.max": limit, "memory.limit_in_bytes": limit}) as group:
        assert in_group(group, "usable_memory_bytes()") == 512 << 20
        assert 0 < in_group(group, "free_memory_bytes()") < 512 << 20


def test_a_replica_keeps_to_the_limits_of_its_pod(
    tmp_path: Path, large_host: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pod(tmp_path)
    monkeypatch.setattr("serve.settings.usable_cores", lambda: machine.usable_cores(root))
    monkeypatch.setattr("serve.models.loaded_models.free_memory_bytes", lambda: machine.free_memory_bytes(root))
    assert DetectArgs().worker_count() == 4
    require_memory(VersionId("deer", "1"), 5 * GIB)  # 0.8 of the free 7 may be used
    with pytest.raises(ModelNotReady, match="7168 MiB are free"):
        require_memory(VersionId("deer", "1"), 6 * GIB)
