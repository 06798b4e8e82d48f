"""Parse and write large JSON of /v2 in another process, so that it does not hold the interpreter of the event loop.

The process ends when its end of the pipe is closed, so it cannot outlive the process that started it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from model_store.errors import Overloaded, ResightError

ROOT = Path(__file__).resolve().parents[3]
P = ParamSpec("P")
R = TypeVar("R")


class JsonProcess:
    """Started by the first call, and again if it has ended. Not thread-safe: one call at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `function(…)`, importable by its name. Raises its errors, and Overloaded if the process ends."""
        try:
            if self._process is None or self._process.poll() is not None:
                self._start()
            self._pipe.send((function, args, kwargs))
            value, error = self._pipe.recv()
        except (OSError, EOFError):
            self.stop()
            raise Overloaded("the process that parses JSON has ended: try again") from None
        if error is not None:
            raise error
        return value

    def stop(self) -> None:
        """End the process. The next call starts another."""
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        self.stop()
        self._pipe, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, f"{number}"],
                pass_fds=[number],
                cwd=ROOT,
                process_group=0,  # Ctrl-C is for its parent, which still answers the requests that it has accepted
            )


def main() -> None:
    with suppress(EOFError, OSError), Connection(int(sys.argv[1])) as pipe:  # the other process has ended
        while True:
            function, args, kwargs = pipe.recv()
            pipe.send(_outcome(function, args, kwargs))


def _outcome(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, Exception | None]:
    try:
        return function(*args, **kwargs), None
    except ResightError as error:
        return None, error
    except Exception as error:
        return None, RuntimeError(f"{type(error).__name__}: {error}")  # not every error can be pickled


if __name__ == "__main__":
    main()
