"""Ray's own processes wait for their turn: a score of them wake a hundred times a second each, to look for signals.

Each time one interrupts inference, the processor's caches are its own for a while. What answers requests, or hands
them on, still interrupts at once. Measured: docs/decisions/0012.
"""

from __future__ import annotations

import contextlib

import psutil

from serve.priority import wait_for_a_turn

ON_THE_WAY = ("ServeReplica:", "ProxyActor", "HAProxyManager", "haproxy")
"""Of a request. A replica that Ray starts later says so itself (`serve/replica.py`)."""


def calm(head_pid: int) -> None:
    """Those that run below the head now, and all that they will start."""
    with contextlib.suppress(psutil.NoSuchProcess):
        head = psutil.Process(head_pid)
        for process in (head, *head.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.cmdline())
                if not any(name in words for name in ON_THE_WAY):
                    wait_for_a_turn(process.pid)
