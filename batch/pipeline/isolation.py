"""Call a function in a child process, so that an image that kills its process does not kill the caller.

isolated(function)(...) -> what the function returns or raises, or ProcessDied
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from model_store.process_exit import ended_by

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
ATTEMPTS = 2
"""A child may also die of another cause, such as memory taken by other processes, but not twice in one call."""


class ProcessDied(Exception):
    """The child ended in each attempt; the message is the signal or the exit code."""


def isolated(function: Callable[..., T]) -> Callable[..., T]:
    """Return a function that calls this one, importable by name, in a child process; it also raises ProcessDied."""
    local = threading.local()

    def call(*arguments: Any) -> T:
        end = ""
        for _ in range(ATTEMPTS):
            child = getattr(local, "child", None) or _Child(function)
            local.child = child
            try:
                result, error = child.call(arguments)
            except (EOFError, OSError):
                end, local.child = child.end(), None
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
        """Return the result and the error. Raises EOFError or OSError if the process ends."""
        self._pipe.send(arguments)
        return self._pipe.recv()

    def end(self) -> str:
        self._pipe.close()
        self._process.join()
        return ended_by(self._process.exitcode or 0)


def _work(pipe: Connection, function: Callable[..., Any]) -> None:
    """Serve calls until the caller has ended. If memory runs out, the kernel kills this process first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(EOFError, ConnectionError):  # also if it was killed during a call
        while True:
            arguments = pipe.recv()
            try:
                answer = function(*arguments), None
            except Exception as error:
                answer = None, sendable(error)
            pipe.send(answer)


def sendable(error: E) -> E | RuntimeError:
    """Return the error with its traceback as a note, or its text if it cannot be pickled."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
