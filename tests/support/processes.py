"""Processes of tests that are forked from one that has imported what is heavy; each starts in 0.1 s instead of 3 s.

They end without unloading modules, like our commands (model_store/process_exit.py).
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

import resight

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND_S = 300
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["tests.archive.racing_writer", "tests.batch.crash.driver", "tests.model_store.racing_creator", "cli.main", "s3fs"]
)


def process(target: Callable[..., object], *args: object) -> BaseProcess:
    """Return a process, not yet started, that calls `target(*args)` in the environment of now."""
    return PROCESSES.Process(target=_call, args=(dict(os.environ), target, args))


def pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool whose processes have the environment of now."""
    return ProcessPoolExecutor(workers, PROCESSES, _take_environment, (dict(os.environ),))


def command(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `resight ARGUMENTS` from the repository root, with these variables besides those of now."""
    with tempfile.TemporaryDirectory() as folder:
        streams = f"{folder}/out", f"{folder}/err"
        child = PROCESSES.Process(target=_command, args=({**os.environ, **environment}, arguments, *streams))
        child.start()
        child.join(COMMAND_S)
        if child.exitcode is None:
            child.kill()
            raise subprocess.TimeoutExpired(arguments, COMMAND_S)
        out, err = (Path(stream).read_text() for stream in streams)
        return subprocess.CompletedProcess(arguments, child.exitcode, out, err)


def _command(environment: dict[str, str], arguments: tuple[str, ...], out: str, err: str) -> None:
    _take_environment(environment)
    os.chdir(ROOT)
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    sys.argv = ["resight", *arguments]
    resight.main()


def clear_variables(patch: pytest.MonkeyPatch) -> None:
    """Delete what names a home, a cluster or settings of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith(("RESIGHT_", "RAY_"))]:
        patch.delenv(name)


def forget_environment() -> None:
    """Let the next process be forked from a new server: Ray reads its variables when it is imported."""
    forkserver._forkserver._stop()


def _take_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _call(environment: dict[str, str], target: Callable[..., object], args: tuple[Any, ...]) -> None:
    _take_environment(environment)
    target(*args)
