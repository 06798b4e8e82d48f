"""Fork server for proofs: a process with the imports of a detector, which forks one child per version to prove.

stdin   a line {"url": …, "version": …, "threads": …, "digest": …}
stdout  a line with the proof, the error, or the signal that ended the child

`sandbox.py` starts it (`python -m serve.rollout.fork_server`) and ends it. A new interpreter with the same imports
would take a second of CPU time from live requests.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import psutil

from model_store.errors import ModelRefused
from model_store.machine import free_memory_bytes
from model_store.names import parse_version
from model_store.process_exit import ended_by
from serve.inference.os_priority import lower_process_priority
from serve.rollout.proof import prove

SHARE = 0.1
"""Share of a processor while live requests use it: a proof runs on the remaining time."""
MEMORY_SHARE = 0.8
"""Share of the memory that is free when a proof starts; the rest is for processes that serve."""
_NO_MEMORY = re.compile(r"bad_alloc|allocate memory|insufficient memory", re.IGNORECASE)
"""Messages of C++ and ONNX Runtime, of Linux and PyTorch, and of OpenCV."""


def main() -> None:
    lower_process_priority(SHARE)
    while line := sys.stdin.buffer.readline():
        print(json.dumps(_in_a_child(json.loads(line))), flush=True)


def _in_a_child(request: dict[str, Any]) -> dict[str, Any]:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _prove_and_end(request, writes)
    os.close(writes)
    answer = b""
    with os.fdopen(reads, "rb") as pipe:
        while True:
            ready, _, _ = select.select([pipe, 0], [], [])
            if 0 in ready:  # EOF: the parent has ended, since it sends no request during a proof
                os.kill(child, signal.SIGKILL)
                sys.exit()
            part = os.read(pipe.fileno(), 65536)
            if not part:
                break
            answer += part
    _, status = os.waitpid(child, 0)
    if answer and status == 0:
        return dict(json.loads(answer))
    return {"ended": ended_by(os.waitstatus_to_exitcode(status))}


def _prove_and_end(request: dict[str, Any], writes: int) -> None:
    """Prove, write the answer and exit, without the exit handlers of the parent."""
    os.dup2(2, 1)  # output of libraries must not mix with answers
    try:
        with _bounded_memory():
            version, digest = parse_version(request["version"]), request.get("digest", "")
            proof = prove(request["url"], version, request["threads"], digest)
        answer: dict[str, Any] = {"proof": asdict(proof)}
    except BaseException as error:
        answer = _failure(request["version"], error)
    with os.fdopen(writes, "w") as pipe:
        json.dump(answer, pipe)
    os._exit(0)


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Limit this process to MEMORY_SHARE of the memory that is free now; on Linux only.

    The limit counts private writable memory.
    """
    if sys.platform != "linux":
        yield
        return
    before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = psutil.Process().memory_info().data + int(MEMORY_SHARE * free_memory_bytes())
    limit = limit if soft == resource.RLIM_INFINITY else min(limit, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _failure(version: str, error: BaseException) -> dict[str, Any]:
    """Return class and message; the message must be stable, since a repeated refusal is reported once."""
    if any(_is_of_memory(cause) for cause in _causes(error)):
        message = f"{version} needs more memory than is free here: free some, or use a machine with more"
        return {"error": ModelRefused.__name__, "message": message}
    return {"error": type(error).__name__, "message": str(error) or repr(error)}


def _is_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, then its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    main()
