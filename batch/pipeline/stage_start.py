"""Start the processes of `stage_process.py`; one of them ahead, while the command still imports and plans.

start_ahead(store, model); start() -> StartedProcess --order--> a process that serves a stage
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import TYPE_CHECKING, Any

from model_store.process_exit import ended_by

if TYPE_CHECKING:
    from batch.pipeline.stage import Stage

STDOUT, STDERR = 1, 2


@dataclass(frozen=True, slots=True)
class StageOrder:
    """The stage of a process: class, arguments, `name@version` of its model or an empty text, and threads.

    `node` and `careful` as in `batch.pipeline.stage.StageProcess`.
    """

    stage: type[Stage]
    arguments: tuple[Any, ...]
    model: str
    store_url: str
    threads: int
    node: str
    careful: bool = False


@dataclass(frozen=True, slots=True)
class StartedProcess:
    pipe: Connection
    process: subprocess.Popen[bytes]

    def order(self, order: StageOrder) -> None:
        """Send the stage, and the output of this process for that of the other. Raises OSError if it has died."""
        self.pipe.send(order)
        send_handle(self.pipe, STDOUT, self.process.pid)

    def end(self) -> str:
        """Close the pipe, at which the process ends, and return how it ended."""
        self.pipe.close()
        return ended_by(self.process.wait())


_ahead: list[StartedProcess] = []


def start_ahead(*model: str) -> None:
    """Start a process for the next call of `start`. If there is none, it ends with this process.

    `model`: URL of a store and reference to a model in it, which the process loads; it serves any other one too.
    """
    if not _ahead:
        _ahead.append(_started(*model))
        atexit.register(_end_unused)


def start() -> StartedProcess:
    """Return a process that waits for its stage. Signals of the terminal do not reach it: it ends with its pipe."""
    return _ahead.pop() if _ahead else _started()


def _started(*model: str) -> StartedProcess:
    ours, theirs = Pipe()
    with theirs:
        module = "batch.pipeline.stage_process"
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno()), *model],
            stdin=subprocess.DEVNULL,
            stdout=STDERR,  # until it has its stage: only errors of imports
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return StartedProcess(ours, process)


def _end_unused() -> None:
    for started in _ahead:
        started.process.kill()
        started.end()
