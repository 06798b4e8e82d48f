"""A process that has imported what a detector needs, and does nothing but fork: each child proves one version.

stdin: {"url": …, "version": …, "threads": …, "digest": …}, a line each, and "memory_share" where it is not
MEMORY_SHARE -> stdout: a line with the proof, with the error, or with the signal that ended the child. `python -m
serve.rollout.zygote`, started and ended by `apart.py`. A new interpreter with the same imports would take a second
of a processor that live requests want.
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
from serve.priority import give_way_all
from serve.rollout.prove import prove

SHARE = 0.1
"""Of a processor, while live requests want it: a proof runs on what they leave."""
MEMORY_SHARE = 0.8
"""Of the memory that is free when a proof starts: what serves here may want more meanwhile."""
_NO_MEMORY = re.compile(r"bad_alloc|allocate memory|insufficient memory", re.IGNORECASE)
"""In the words of C++ and ONNX Runtime, of Linux and PyTorch, and of OpenCV."""


def main() -> None:
    give_way_all(SHARE)
    while line := sys.stdin.buffer.readline():
        print(json.dumps(_in_a_child(json.loads(line))), flush=True)


def _in_a_child(asked: dict[str, Any]) -> dict[str, Any]:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _prove_and_end(asked, writes)
    os.close(writes)
    said = b""
    with os.fdopen(reads, "rb") as pipe:
        while True:
            ready, _, _ = select.select([pipe, 0], [], [])
            if 0 in ready:  # nothing is asked meanwhile, so it is the end: whoever asked is gone
                os.kill(child, signal.SIGKILL)
                sys.exit()
            part = os.read(pipe.fileno(), 65536)
            if not part:
                break
            said += part
    _, status = os.waitpid(child, 0)
    if said and status == 0:
        return dict(json.loads(said))
    code = os.waitstatus_to_exitcode(status)
    return {"ended": signal.Signals(-code).name if code < 0 else f"exit code {code}"}


def _prove_and_end(asked: dict[str, Any], writes: int) -> None:
    """Never returns, and runs nothing that the parent has registered for its own end."""
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        with _bounded_memory(asked.get("memory_share", MEMORY_SHARE)):
            version, digest = parse_version(asked["version"]), asked.get("digest", "")
            proof = prove(asked["url"], version, asked["threads"], digest)
        found: dict[str, Any] = {"proof": asdict(proof)}
    except BaseException as error:
        found = _failure(asked["version"], error)
    with os.fdopen(writes, "w") as pipe:
        json.dump(found, pipe)
    os._exit(0)


@contextlib.contextmanager
def _bounded_memory(share: float) -> Iterator[None]:
    """Meanwhile this process gets no more than so much of the memory that is free now; on Linux only, where the
    limit counts private memory that can be written.
    """
    if sys.platform != "linux":
        yield
        return
    before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = psutil.Process().memory_info().data + int(share * free_memory_bytes())
    most = most if soft == resource.RLIM_INFINITY else min(most, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _failure(version: str, error: BaseException) -> dict[str, Any]:
    """Class and words; the same words each time, since a refusal that is repeated is reported once."""
    if any(_is_of_memory(one) for one in _causes(error)):
        says = (
            f"{version} needs more memory than is free here: free some, or use a machine with more"
        )
        return {"error": ModelRefused.__name__, "says": says}
    return {"error": type(error).__name__, "says": str(error) or repr(error)}


def _is_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error itself first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    main()
