"""Processes of tests that are forked from one that has imported what is heavy; each starts in 0.1 s instead of 3 s.

They end without unloading modules, like our commands (model_store/process_exit.py).
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from typing import Any

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tests.archive.racing_writer",
        "tests.batch.crash.driver",
        "tests.model_store.racing_creator",
        "s3fs",
    ]
)


def process(target: Callable[..., object], *args: object) -> BaseProcess:
    """Return a process, not yet started, that calls `target(*args)` in the environment of now."""
    return PROCESSES.Process(target=_call, args=(dict(os.environ), target, args))


def pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool whose processes have the environment of now."""
    return ProcessPoolExecutor(workers, PROCESSES, _take_environment, (dict(os.environ),))


def _take_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _call(
    environment: dict[str, str], target: Callable[..., object], args: tuple[Any, ...]
) -> None:
    _take_environment(environment)
    target(*args)
