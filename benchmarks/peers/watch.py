"""What a program costs: CPU seconds and peak memory of a process and all below it, sampled from outside.

with Watch(pid) as watch: …; watch.cpu_s, watch.peak_pss_mib

Memory is PSS (each shared page counted once over all who share it), summed over the tree: the fair figure for
programs that share pages between workers. A process that ends keeps its last sample, so up to `every_s` of its CPU
time is missed; one that starts while it is watched counts from its start.
"""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

EVERY_S = 2.0  # smaps_rollup of 20 processes takes 20 to 60 ms, which the program would pay for


class Watch:
    """Of the tree below `pid`, that process included. Read the figures after the block."""

    def __init__(self, pid: int, every_s: float = EVERY_S) -> None:
        self._root = psutil.Process(pid)
        self._every_s = every_s
        self._first: dict[psutil.Process, float] = {}
        self._last: dict[psutil.Process, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_pss_mib = 0.0

    @property
    def cpu_s(self) -> float:
        """User and system time between entry and exit."""
        return sum(last - self._first.get(process, 0.0) for process, last in self._last.items())

    def __enter__(self) -> Watch:
        self._sample()
        self._first = dict(self._last)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._done.wait(self._every_s):
            self._sample()

    def _sample(self) -> None:
        pss_bytes = 0
        for process in self._tree():
            try:  # a process is itself by pid and start, so a pid used again is another one
                times = process.cpu_times()
                self._last[process] = times.user + times.system
                memory = process.memory_full_info()
            except psutil.Error:
                continue
            pss_bytes += getattr(memory, "pss", memory.uss)  # macOS has no PSS
        self.peak_pss_mib = max(self.peak_pss_mib, pss_bytes / 2**20)

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
