"""Sample the CPU seconds of each part of a cluster during a run, from outside.

with CpuShare() as share: …; share.seconds() -> {"replica": …, "stage": …, "driver": …, "ray": …}
Watched processes are those below the Ray head of this home, plus any that start later.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from types import TracebackType

import psutil

EVERY_S = 5.0  # a sample costs 40 ms of the run


class CpuShare:
    """Watch the children of `head_pid`; a process that ends keeps its last sample."""

    def __init__(self, head_pid: int) -> None:
        self._head = psutil.Process(head_pid)
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._part: dict[int, str] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuShare:
        self._sample()
        self._first = dict(self._last)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def seconds(self) -> dict[str, float]:
        total: defaultdict[str, float] = defaultdict(float)
        for pid, last in self._last.items():
            total[self._part[pid]] += last - self._first.get(pid, 0.0)
        return {part: round(seconds, 2) for part, seconds in sorted(total.items())}

    def _watch(self) -> None:
        while not self._done.wait(EVERY_S):
            self._sample()

    def _sample(self) -> None:
        for process in self._head.children(recursive=True):
            try:
                times, command = process.cpu_times(), " ".join(process.cmdline())
            except psutil.Error:
                continue
            self._last[process.pid] = times.user + times.system
            self._part[process.pid] = _part(command)  # workers are renamed when they receive work


def _part(command: str) -> str:
    for sign, part in (("ServeReplica", "replica"), ("MapWorker", "stage"), ("batch.reprocess", "driver")):
        if sign in command:
            return part
    return "ray"
