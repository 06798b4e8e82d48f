"""End a process without unloading its modules; describe how another one ended."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Generator


@contextlib.contextmanager
def final_exit() -> Generator[None]:
    """Let a SystemExit of the body end the process at once, after exit handlers and flushed streams.

    Otherwise Python unloads its modules, which takes seconds on a busy machine, and a thread of Arrow that still
    releases a buffer then may abort the process ("terminate called without an active exception", exit code 134),
    although all its work is done: https://github.com/apache/arrow/issues/34314.
    """
    try:
        yield
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise  # Python prints its text
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(end.code or 0)


def ended_by(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code in words. `code` is negative for signals."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
