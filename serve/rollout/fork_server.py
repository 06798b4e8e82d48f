"""Fork server for proofs: a process with the imports of a detector, which forks two children per version to prove.

stdin       a Unix socket, over which each proof's own socket arrives
its socket  a line {"url": …, "version": …, "threads": …, "digest": …}, then the answer: the proof, the error, or the
            signal that ended the process. If the sender closes it, the proof ends.

`sandbox.py` starts it (`python -m serve.rollout.fork_server`). A new interpreter with the same imports would take a
second of CPU time from live requests.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NoReturn

import psutil

from model_store.errors import ModelRefused
from model_store.machine import free_memory_bytes
from model_store.names import parse_version
from model_store.process_exit import ended_by
from serve.inference.os_priority import lower_process_priority
from serve.rollout.sandbox import prove

SHARE = 0.1
"""Share of a processor while live requests use it: a proof runs on the remaining time."""
MEMORY_SHARE = 0.8
"""Share of the memory that is free when a proof starts; the rest is for processes that serve."""
_NO_MEMORY = re.compile(r"bad_alloc|allocate memory|insufficient memory", re.IGNORECASE)
"""Messages of C++ and ONNX Runtime, of Linux and PyTorch, and of OpenCV."""


def main() -> None:
    lower_process_priority(SHARE)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system then reaps children
    requests = socket.socket(fileno=0)
    while fds := socket.recv_fds(requests, 1, 1)[1]:
        if os.fork() == 0:
            requests.close()
            _watch_a_child(socket.socket(fileno=fds[0]))
        os.close(fds[0])


def _watch_a_child(peer: socket.socket) -> NoReturn:
    """Prove in a child of this process; end the child if the sender closes the socket. Exits."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with peer.makefile("rb") as stream:
        request = json.loads(stream.readline() or b"null")
    ends, alive = os.pipe()  # `alive` is closed by the end of the child
    if request is None:
        os._exit(0)
    if (child := os.fork()) == 0:
        _prove(request, peer)
    os.close(alive)
    ready, _, _ = select.select([ends, peer], [], [])
    if ends not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if status != 0:
        _send(peer, {"ended": ended_by(os.waitstatus_to_exitcode(status))})
    os._exit(0)


def _prove(request: dict[str, Any], peer: socket.socket) -> NoReturn:
    """Prove, send the answer and exit, without the exit handlers of the parent."""
    if sys.platform == "linux":  # end with the parent, however that ends (prctl: PR_SET_PDEATHSIG)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    try:
        before = _bound_memory()
        try:
            proof = prove(request["url"], parse_version(request["version"]), request["threads"], request["digest"])
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)
        answer: dict[str, Any] = {"proof": asdict(proof)}
    except BaseException as error:
        answer = _failure(request["version"], error)
    _send(peer, answer)
    os._exit(0)


def _send(peer: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the sender has closed it
        peer.sendall(json.dumps(answer).encode())


def _bound_memory() -> tuple[int, int]:
    """Limit this process's memory to MEMORY_SHARE of what is free, on Linux only; return the limit from before."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if sys.platform == "linux":
        limit = psutil.Process().memory_info().data + int(MEMORY_SHARE * free_memory_bytes())
        limit = limit if soft == resource.RLIM_INFINITY else min(limit, soft)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return before


def _failure(version: str, error: BaseException) -> dict[str, Any]:
    """Return class, message and `retry_after_s`; the message must be stable: a repeated refusal is reported once."""
    if any(isinstance(cause, MemoryError) or _NO_MEMORY.search(str(cause)) for cause in _causes(error)):
        message = f"{version} needs more memory than is free here: free some, or use a machine with more"
        return {"error": ModelRefused.__name__, "message": message}
    soon = getattr(error, "retry_after_s", None)
    return {"error": type(error).__name__, "message": str(error) or repr(error), "retry_after_s": soon}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    main()
