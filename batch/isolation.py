"""A function called in a child process, which may die of what it is given without harm to its caller.

isolated(function)(*arguments) -> what the function returns, or ProcessDied
Arguments and results cross a pipe as pickles. Each thread of the caller has a child of its own, which lasts.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ATTEMPTS = 2
"""A child may also die of something else, such as memory that others took; not twice at the same call."""


class ProcessDied(Exception):
    """The child ended in each attempt; the message says by which signal, or its exit code."""


def isolated(function: Callable[..., T]) -> Callable[..., T]:
    """Return the function as called in a child process; it must be importable by name.

    What it raises is raised. Raises ProcessDied.
    """
    of_thread = threading.local()

    def call(*arguments: Any) -> T:
        end = ""
        for _ in range(ATTEMPTS):
            child = getattr(of_thread, "child", None) or _Child(function)
            of_thread.child = child
            try:
                result, error = child.call(arguments)
            except (EOFError, OSError):
                end, of_thread.child = child.end(), None
                continue
            if error is not None:
                raise error
            return result
        raise ProcessDied(end)

    return call


class _Child:
    def __init__(self, function: Callable[..., Any]) -> None:
        context = multiprocessing.get_context("spawn")  # threads of the caller hold locks
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, function), daemon=True)
        with theirs:
            self._process.start()

    def call(self, arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
        """Raises EOFError or OSError where the process ends."""
        self._pipe.send(arguments)
        return self._pipe.recv()

    def end(self) -> str:
        self._pipe.close()
        self._process.join()
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _work(pipe: Connection, function: Callable[..., Any]) -> None:
    """Answer until the caller is gone. Out of memory, the kernel takes this process first."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(EOFError):
        while True:
            arguments = pipe.recv()
            try:
                answer = function(*arguments), None
            except Exception as error:
                answer = None, error
            pipe.send(answer)
