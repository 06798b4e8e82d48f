"""Parse and write large JSON of /v2 in another process, so that it does not hold the interpreter of the event loop.

    JsonProcess.call(function, …) --pickle--> `python -m serve.api.v2.json_process` --pickle--> its value, or its error

A call is 4 bytes of length (little-endian), then the pickle. The process ends when its stdin is closed, so it cannot
outlive the process that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

from model_store.errors import Overloaded, ResightError

ROOT = Path(__file__).resolve().parents[3]
_LENGTH_BYTES = 4

P = ParamSpec("P")
R = TypeVar("R")


class JsonProcess:
    """Started by the first call, and again if it has ended. Not thread-safe: one call at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `function(…)`; the function must be importable by its name.

        Raises the errors of the function, and Overloaded if the process ends during the call.
        """
        process = self._running()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _send(process.stdin, (function, args, kwargs))
            value, error = _receive(process.stdout)
        except (OSError, EOFError):
            self.stop()
            raise Overloaded("the process that parses JSON has ended: try again") from None
        if error is not None:
            raise error
        return value

    def stop(self) -> None:
        """End the process. The next call starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:
                pass  # closes the pipes and waits

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
            )
        return self._process


def main() -> None:
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with answers
    with contextlib.suppress(EOFError, BrokenPipeError):  # the other process has ended
        while True:
            function, args, kwargs = _receive(calls)
            _send(answers, _outcome(function, args, kwargs))


def _outcome(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, Exception | None]:
    """Return the value or the error of a call."""
    try:
        return function(*args, **kwargs), None
    except ResightError as error:
        return None, error
    except Exception as error:
        return None, RuntimeError(f"{type(error).__name__}: {error}")  # not every error can be pickled


def _send(pipe: IO[bytes], message: Any) -> None:
    packed = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pipe.write(len(packed).to_bytes(_LENGTH_BYTES, "little"))
    pipe.write(packed)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Return the next message. Raises EOFError at the end of the pipe."""
    length = int.from_bytes(_exactly(pipe, _LENGTH_BYTES), "little")
    return pickle.loads(_exactly(pipe, length))


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


if __name__ == "__main__":
    main()
