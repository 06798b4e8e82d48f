"""A peer's command: its environment, its words filled in, and its end, with all that it started.

The environment is ours without what belongs to our own python and without settings of other runs of Ray; PYTHONPATH
has this folder, so that `from detector import Detector` works. Every process that inherits MARK is the peer's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import string
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

PEERS = Path(__file__).resolve().parent
MARK = "PEER_MARK"
GRACE_S = 15.0
LEFT_S = 5.0


class PeerFailed(RuntimeError):
    """It did not do what it should; the message ends with the tail of its log."""


def variables(python: Path, words: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """`own`: of a config, in which $PEER_CORES and the like of `words` are filled in."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "RESIGHT_", "PYTHON"))}
    kept.pop("VIRTUAL_ENV", None)
    path = f"{python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    filled_in = {name: filled(value, words) for name, value in own.items()}
    ours = {"PATH": path, "PYTHONPATH": str(PEERS), "PYTHONUNBUFFERED": "1"}
    return {**kept, **ours, **words, **filled_in}


def filled(text: str, words: Mapping[str, str]) -> str:
    """$NAME stands for a variable. Raises KeyError for one that there is not."""
    return string.Template(text).substitute(words)


def complete(command: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """Filled in, the first word found on `words`' PATH. Raises PeerFailed."""
    first, *others = (filled(word, words) for word in command)
    found = shutil.which(first, path=words["PATH"])
    if found is None:
        raise PeerFailed(f"{first} is not on the PATH {words['PATH']}")
    return [found, *others]


def tail(log: Path, most: int = 4000) -> str:
    return log.read_bytes()[-most:].decode(errors="replace")


def end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Asks its session to end, then what else it started; what is left after a grace is killed."""
    below = _below(process.pid)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # its own session, so the group is its own too
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    for signalled in (signal.SIGTERM, signal.SIGKILL):
        for one in _left(below, mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signalled)
        until_s = time.monotonic() + LEFT_S
        while _left(below, mark) and time.monotonic() < until_s:
            time.sleep(0.05)
    process.wait()


def _below(pid: int) -> set[psutil.Process]:
    """Also those that wrote a name over their environment, as Ray's agents do."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return set(psutil.Process(pid).children(recursive=True))
    return set()


def _left(below: set[psutil.Process], mark: str) -> set[psutil.Process]:
    """Those that still run, zombies apart."""
    found = set(marked(mark))
    for one in below:  # a process is itself by pid and start, so a pid used again is another one
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                found.add(one)
    return found


def marked(mark: str) -> list[psutil.Process]:
    """All that inherited it, wherever they moved: workers leave sessions, daemons leave their parents."""
    found: list[psutil.Process] = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.environ().get(MARK) == mark:
                found.append(one)
    return found
