"""A function that ends its process, as a fault in a decoder does: to be called in a child process."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def die_of(value: str) -> str:
    """Die by SIGSEGV of 'bad', leave with 3 for 'exit', raise for 'error', else return the process id."""
    if value == "bad":
        os.kill(os.getpid(), signal.SIGSEGV)
    if value == "exit":
        os._exit(3)
    if value == "error":
        raise FileNotFoundError(value)
    if value.startswith("/"):  # the first call that finds the file dies of it, and removes it
        Path(value).unlink(missing_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    return str(os.getpid())
