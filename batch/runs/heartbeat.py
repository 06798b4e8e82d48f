"""Call a function at intervals during a run, to record that it is alive and to renew its lease."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator

import structlog

HEARTBEAT_S = 30
"""Interval at which a run records that it is alive and renews its lease."""
log = structlog.get_logger("resight.run")


@contextlib.contextmanager
def heartbeat(beat: Callable[[], object]) -> Generator[None]:
    """Call `beat` in a thread until the block ends; then wait for a call that is still running.

    An error of `beat` is logged and does not end the block, or the calls: the block itself fails if it cannot
    continue.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(HEARTBEAT_S):
            try:
                beat()
            except Exception as error:
                log.warning("heartbeat", error=f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=repeat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
