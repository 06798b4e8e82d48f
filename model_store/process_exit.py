"""End a process without unloading its modules, and at a signal; describe how another one ended."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_raised: list[BaseException] = []
"""Exceptions of handlers in the running block of `lasting_stops`."""


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


@contextlib.contextmanager
def lasting_stops() -> Generator[None]:
    """Raise the exception of a handler of SIGINT, SIGTERM or SIGHUP, also if code of the block replaced it.

    Native code turns an exception of its callbacks into its own error: DuckDB reports Ctrl-C as an invalid input.
    Finalizers ignore exceptions. Only the main thread has handlers; in others, the block is executed unchanged.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former: dict[int, Handler] = {n: handler for n in STOPS if callable(handler := signal.getsignal(n))}

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            former[number](number, frame)
        except BaseException as end:
            _raised.append(end)
            raise

    try:
        for number in former:
            signal.signal(number, handle)
        try:
            yield
        except Exception:
            require_no_stop()
            raise
        require_no_stop()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        _raised.clear()


def require_no_stop() -> None:
    """Raise the exception of a handler in the running block of `lasting_stops`, if there is one."""
    if _raised:
        raise _raised[0] from None


def ended_by(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code in words. `code` is negative for signals."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
