"""How bulk work gives way to people who wait, where both want the same processor."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading

BULK_SHARE = 0.2
"""Of a processor, for bulk work, while live requests want it as well."""
_STEP = 1.25
"""Linux gives a thread 1.25 times the weight of one that is nicer by 1 (sched(7), `sched_prio_to_weight`)."""


def niceness(share: float) -> int:
    """With which a thread gets `share` of a processor beside one of niceness 0."""
    return min(19, max(0, round(math.log((1 - share) / share, _STEP))))


def give_way(share: float = BULK_SHARE) -> None:
    """This thread, from now on. (Where threads have no niceness of their own, all goes on as before.)"""
    if sys.platform == "linux":
        _make_nicer(threading.get_native_id(), share)


def give_way_all(share: float = BULK_SHARE) -> None:
    """All threads of this process, and those they will start."""
    if sys.platform == "linux":
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                _make_nicer(int(thread), share)


def wait_for_a_turn(pid: int) -> None:
    """All threads of a process, and those they will start: they interrupt nobody when they wake (SCHED_BATCH).
    Nothing where that cannot be had, or where the process has ended.
    """
    _schedule(pid, "SCHED_BATCH")


def interrupt_at_once() -> None:
    """All threads of this process, and those they will start, whatever those are that started it."""
    _schedule(os.getpid(), "SCHED_OTHER")


def _schedule(pid: int, policy: str) -> None:
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                os.sched_setscheduler(int(thread), getattr(os, policy), os.sched_param(0))


def _make_nicer(thread: int, share: float) -> None:
    now = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, min(19, now + niceness(share)))
