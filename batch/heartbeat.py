"""A thread that repeats something every HEARTBEAT_S while a block runs, whatever the block is busy with."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator

import structlog

HEARTBEAT_S = 30
"""How often a run that is at work says so, and renews its lease."""
log = structlog.get_logger("resight.run")


@contextlib.contextmanager
def heartbeat(beat: Callable[[], object]) -> Generator[None]:
    """Call `beat` in a thread until the block ends; then wait for a call that is under way.

    An error of `beat` is logged, and the next call is due as before: rows and records of the block itself decide
    whether it can go on.
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
