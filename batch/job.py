"""How a job of the cluster begins and ends, whatever it does.

python -m batch.… --run_job--> JSON lines and an exit code; begin(settings) -> a driver of the cluster that gives way
Ray is imported by `begin`, so a plan or a wrong option needs none.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import structlog
import typer

from batch.exit_codes import exit_code
from model_store.errors import ResightError
from serve.cluster import join
from serve.logs import configure_logs
from serve.priority import give_way_all
from serve.settings import Settings

SIGTERM_EXIT = 143
"""128 + SIGTERM, as a shell tells it; on the way there, what has been paid for is kept and the run is recorded."""


def begin(settings: Settings) -> None:
    """Before a job's first word to Ray. Raises ClusterError."""
    _connect(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT))  # after Ray has set its own
    give_way_all()


def run_job(main: Callable[..., None], logger: str) -> None:
    """The command line of a job; never returns. Errors of ours are told as the last line of `logger`, `run_failed`."""
    configure_logs()
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except ResightError as error:
        log: Any = structlog.get_logger(logger)
        log.error("run_failed", kind=type(error).__name__, error=str(error))
        sys.exit(exit_code(error))


def _connect(settings: Settings) -> None:
    """Inside a Ray job everything is set; from a shell, join the cluster of this home."""
    if "RAY_ADDRESS" not in os.environ:
        join(settings)  # before Ray is imported: it reads its authentication mode then
    import ray

    address = os.environ.get("RAY_ADDRESS", "auto")
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
