"""A process that has imported what a detector needs, and does nothing but fork: each child proves one version.

stdin: {"url": …, "version": …, "threads": …}, a line each -> stdout: a line with the proof, with the error, or with the
signal that ended the child. `python -m serve.rollout.zygote`, started and ended by `apart.py`. A new interpreter
with the same imports would take a second of a processor that live requests want.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from dataclasses import asdict
from typing import Any

from model_store.names import parse_version
from serve.priority import give_way_all
from serve.rollout.prove import prove

SHARE = 0.1
"""Of a processor, while live requests want it: a proof runs on what they leave."""


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
        proof = prove(asked["url"], parse_version(asked["version"]), asked["threads"])
        found: dict[str, Any] = {"proof": asdict(proof)}
    except BaseException as error:
        found = {"error": type(error).__name__, "says": str(error) or repr(error)}
    with os.fdopen(writes, "w") as pipe:
        json.dump(found, pipe)
    os._exit(0)


if __name__ == "__main__":
    main()
