"""Scheduling priorities of threads and processes (Linux): bulk work and Ray's own processes yield to requests.

About 20 processes of Ray wake 100 times a second each to check for signals, and each interruption evicts the inference
thread's data from the processor's caches. Processes that answer or forward requests keep the normal policy.
Measured in docs/decisions/0012.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading

import psutil

BULK_SHARE = 0.2
"""Share of a processor for bulk work that competes with live requests."""
_STEP = 1.25
"""Ratio of the weights of two threads with niceness n and n + 1 (Linux: sched(7), `sched_prio_to_weight`)."""


def niceness(share: float) -> int:
    """Return the niceness at which a thread gets `share` of a processor that it shares with one of niceness 0."""
    return min(19, max(0, round(math.log((1 - share) / share, _STEP))))


def lower_thread_priority(share: float = BULK_SHARE) -> None:
    """Lower the priority of the current thread. Does nothing where threads have no separate niceness."""
    if sys.platform == "linux":
        _make_nicer(threading.get_native_id(), share)


def lower_process_priority(share: float = BULK_SHARE) -> None:
    """Lower the priority of all threads of this process, and of threads that they start later."""
    if sys.platform == "linux":
        for thread in os.listdir("/proc/self/task"):
            _make_nicer(int(thread), share)


def set_normal_scheduling() -> None:
    """Set the normal policy for all threads of this process, in place of one inherited from its parent."""
    set_scheduling(os.getpid(), "SCHED_OTHER")


def set_scheduling(pid: int, policy: str) -> None:
    """Set the policy of all threads of a process, which threads and processes that they start inherit.

    Threads with SCHED_BATCH interrupt no other thread when they wake. Does nothing if that is not supported or the
    process has ended.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                os.sched_setscheduler(int(thread), getattr(os, policy), os.sched_param(0))


def _make_nicer(thread: int, share: float) -> None:
    with contextlib.suppress(OSError):  # it has ended, or the service manager forbids it
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + niceness(share)))


_REQUEST_PATH = ("ServeReplica:", "ProxyActor", "HAProxyManager", "haproxy")
"""Processes that a request passes through. A replica that starts later resets its own policy (`serve/replica.py`)."""


def deprioritise_ray_processes(head_pid: int) -> None:
    """Apply the batch policy to the head and its descendants; processes that they start later inherit it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        head = psutil.Process(head_pid)
        for process in (head, *head.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if not any(name in command for name in _REQUEST_PATH):
                    set_scheduling(process.pid, "SCHED_BATCH")
