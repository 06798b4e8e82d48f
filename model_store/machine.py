"""Report the cores and the memory that this process may use, within CPU affinity and control groups.

usable_cores() -> the number of threads to start; usable_memory_bytes(), free_memory_bytes() -> the memory to plan
with; cpu_name() -> the processor.
In a container, affinity and psutil report the host; its limits are in control groups, version 1 or 2.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int:
    """Return the number of cores, at least 1: the minimum of CPU affinity and CPU quotas.

    A quota of 2.5 cores counts as 3, so that all of it can be used. `root` is the folder that contains proc/ and sys/.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for group in _groups("cpu", root) if (quota := _cpu_quota(group)) is not None]
    return max(1, math.ceil(min([cores, *quotas])))


def usable_memory_bytes(root: Path = _ROOT) -> int:
    """Return the memory of the machine, or the lowest limit of a control group around this process."""
    limits = [limit for group in _groups("memory", root) if (limit := _memory_limit(group))]
    return min([psutil.virtual_memory().total, *limits])


def free_memory_bytes(root: Path = _ROOT) -> int:
    """Return the memory that can be taken now without swapping; page cache that can be dropped counts as free."""
    free = psutil.virtual_memory().available
    for group in _groups("memory", root):
        if limit := _memory_limit(group):
            free = min(free, limit - _memory_used(group))
    return max(0, free)


def cpu_name(root: Path = _ROOT) -> str:
    """Return the model name of the processor, "unknown" where the system does not report it."""
    names = (line.partition(":") for line in _lines(root / "proc/cpuinfo"))
    models = (value.strip() for key, _, value in names if key.strip() == "model name")
    return next(models, "") or platform.processor() or "unknown"


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups around this process, the innermost first.

    A group may be limited by any of its ancestors. The kernel's documentation has the format: cgroups(7). They are
    mounted where every distribution and container engine does it: version 2 at /sys/fs/cgroup, version 1 below.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mounted / (controller if controllers and (mounted / controller).is_dir() else controllers)
        # without a cgroup namespace, a container reads the host's path, and its own group is the mount's root
        inside = path.strip("/")
        exists = ".." not in inside.split("/") and (top / inside).is_dir()
        group = top / inside if exists else top
        yield group
        while group != top:
            group = group.parent
            yield group


def _cpu_quota(group: Path) -> float | None:
    """Return the quota in cores, or None without one."""
    numbers = _words(group / "cpu.max") or [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
    if len(numbers) != 2 or numbers[0] in ("max", "-1"):
        return None
    return int(numbers[0]) / int(numbers[1])


def _memory_limit(group: Path) -> int | None:
    """Return the limit in bytes; version 1 has a number near 2⁶³ where there is none."""
    limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
    return int(limit[0]) if limit and limit[0] != "max" else None


def _memory_used(group: Path) -> int:
    """Return the used bytes without inactive page cache: the working set, as kubelet computes it."""
    used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes") or ["0"]
    statistics = dict(line.split() for line in _lines(group / "memory.stat"))
    cached = statistics.get("total_inactive_file", statistics.get("inactive_file", "0"))
    return max(0, int(used[0]) - int(cached))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # another system, or a controller that is not enabled here
        return []


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()
