"""A function that ends its process, like a fault in a decoder; call it in a child process."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def die_of(value: str) -> str:
    """Die by SIGSEGV for 'bad', exit with 3 for 'exit', raise for 'error' and 'local', else return the process id."""
    if value == "bad":
        os.kill(os.getpid(), signal.SIGSEGV)
    if value == "exit":
        os._exit(3)
    if value == "error":
        raise FileNotFoundError(value)
    if value == "local":  # an error that cannot be pickled

        class LocalError(Exception): ...

        raise LocalError("not by name")
    if value.startswith("/"):  # the first call that finds the file removes it and dies
        Path(value).unlink(missing_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    return str(os.getpid())
