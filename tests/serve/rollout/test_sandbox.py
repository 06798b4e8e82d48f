"""Proofs in throw-away processes: a model harms only its own process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from model_store.errors import DigestMismatch, ModelError, ModelNotReady, ModelRefused
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.rollout import fork_server, sandbox
from serve.rollout.sandbox import ROOT, Sandbox
from tests.fixtures_local import MODELS, add_hanging, motion_store

ONE = VersionId("ssdlite-coco", "1")
LIMIT_S = 900.0
"""Guard against a hanging test: on a busy machine, the low priority of a proof makes seconds of CPU time minutes."""


@pytest.fixture
def ground() -> Iterator[Sandbox]:
    ground = Sandbox()
    yield ground
    ground.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """A sandbox for tests that leave its fork server as it is: each starts Python with all imports."""
    ground = Sandbox()
    yield ground
    ground.stop()


@pytest.fixture
def hanging(tmp_path: Path) -> tuple[str, VersionId]:
    store = ModelStore(str(tmp_path))
    return store.url, add_hanging(store)


def children(ground: Sandbox) -> list[psutil.Process]:
    """Return the processes that load a model: each is the child of a child of the fork server."""
    process, found = ground._fork_server, list[psutil.Process]()
    for watching in [] if process is None else psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            found += watching.children()
    return found


def wait_for_child(ground: Sandbox) -> psutil.Process:
    deadline = time.monotonic() + LIMIT_S
    while not children(ground):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return children(ground)[0]


def wait_until_ended(*processes: psutil.Process) -> None:
    """Wait until no process runs. A zombie has ended: the system's first process may be slow to reap orphans."""
    deadline = time.monotonic() + LIMIT_S
    while running := [process for process in processes if runs(process)]:
        assert time.monotonic() < deadline, running
        time.sleep(0.01)


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def stopped_at_the_end(ground: Sandbox) -> Iterator[None]:
    """Stop the proofs before their threads are joined, so that a failed test does not wait for a hanging one."""
    try:
        yield
    finally:
        ground.stop()


def test_versions_are_proved_or_refused_in_children_of_one_process(shared: Sandbox, tmp_path: Path) -> None:
    assert shared.prove(str(MODELS), ONE, 1, LIMIT_S).rss_bytes > 0
    first = shared._fork_server
    store = motion_store(tmp_path, "1")
    (tmp_path / "blobs" / "1" / "config.json").write_text("{}")
    with pytest.raises(DigestMismatch, match=r"config\.json has sha256"):
        shared.prove(store.url, VersionId("blobs", "1"), 1, LIMIT_S)
    with pytest.raises(ModelError, match="blobs@2"):
        shared.prove(store.url, VersionId("blobs", "2"), 1, LIMIT_S)
    assert shared.prove(str(MODELS), ONE, 1, LIMIT_S)
    assert shared._fork_server is first
    assert children(shared) == []


def test_a_proof_that_hangs_delays_no_other_and_is_refused_once_its_process_is_killed(
    ground: Sandbox, hanging: tuple[str, VersionId]
) -> None:
    with ThreadPoolExecutor(1) as pool, stopped_at_the_end(ground):
        proof = pool.submit(ground.prove, *hanging, 1, LIMIT_S)
        child = wait_for_child(ground)
        assert ground.prove(str(MODELS), ONE, 1, LIMIT_S)
        assert not proof.done()
        child.send_signal(signal.SIGKILL)
        with pytest.raises(ModelRefused, match="ended the process that loaded it: .*SIGKILL"):
            proof.result(LIMIT_S)


def test_a_proof_that_does_not_end_is_ended(shared: Sandbox, hanging: tuple[str, VersionId]) -> None:
    with pytest.raises(ModelNotReady, match="did not load and probe within 2 s"):
        shared.prove(*hanging, 1, 2.0)
    deadline = time.monotonic() + LIMIT_S
    while children(shared):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_end_of_the_server_ends_proofs_that_run_and_that_wait(
    ground: Sandbox, hanging: tuple[str, VersionId]
) -> None:
    ground._running = threading.BoundedSemaphore(1)
    with ThreadPoolExecutor(1) as ending, ThreadPoolExecutor(2) as proving:
        pending = [proving.submit(ground.prove, *hanging, 1, LIMIT_S) for _ in range(2)]
        child, end = wait_for_child(ground), ending.submit(ground.stop)
        try:
            end.result(LIMIT_S)
            wait_until_ended(child)
        except (TimeoutError, AssertionError):
            child.kill()
            raise
        for proof in pending:
            with pytest.raises(ModelNotReady, match="the server ends"):
                proof.result(LIMIT_S)


def test_a_fork_server_that_does_not_end_is_killed(ground: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "END_S", 0.1)
    ground.prove(str(MODELS), ONE, 1, LIMIT_S)
    assert ground._fork_server is not None
    ground._fork_server.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as ending:
        end = ending.submit(ground.stop)
        try:
            end.result(60)
        except TimeoutError:
            ground._fork_server.kill()
            raise
    assert ground._fork_server.returncode == -signal.SIGKILL


def test_files_that_are_not_those_that_were_asked_for_are_not_proved(shared: Sandbox) -> None:
    with pytest.raises(DigestMismatch, match="were replaced a moment ago"):
        shared.prove(str(MODELS), ONE, 1, LIMIT_S, "0" * 64)
    digest = ModelStore(str(MODELS)).describe(ONE).digest
    assert shared.prove(str(MODELS), ONE, 1, LIMIT_S, digest).digest == digest


CROWDED = """
import pathlib, sys
from serve.rollout import fork_server, sandbox
fork_server.free_memory_bytes = lambda: int(pathlib.Path(sys.argv[1]).read_text())
fork_server.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no other system bounds a process's memory")
@pytest.mark.parametrize("free_mib", [pytest.param(0, id="none to load it"), pytest.param(65, id="none to run it")])
def test_a_version_that_wants_more_memory_than_is_free_is_refused(
    ground: Sandbox, tmp_path: Path, free_mib: int
) -> None:
    free = tmp_path / "free"
    ground.command = (sys.executable, "-c", CROWDED, str(free))
    free.write_text(str(int(free_mib * 2**20 / fork_server.MEMORY_SHARE)))
    with pytest.raises(ModelRefused, match="ssdlite-coco@1 needs more memory than is free"):
        ground.prove(str(MODELS), ONE, 1, LIMIT_S)
    free.write_text(str(psutil.virtual_memory().available))
    assert ground.prove(str(MODELS), ONE, 1, LIMIT_S), "the next one is not hurt"


@pytest.mark.parametrize(
    ("error", "is_of_memory"),
    [
        (ValueError("no such node"), False),
        (MemoryError(), True),
        (ImportError("Exception caught: std::bad_alloc"), True),
        (RuntimeError("Failed to allocate memory for requested buffer of size 8640000"), True),
        (RuntimeError("pthread_create failed: Cannot allocate memory"), True),
        (RuntimeError("OpenCV: (-4:Insufficient memory) Failed to allocate 9 bytes"), True),
    ],
)
def test_want_of_memory_is_known_by_the_kind_of_an_error_or_its_words(error: Exception, is_of_memory: bool) -> None:
    wrapped = ModelRefused("it cannot be loaded")
    wrapped.__cause__ = error
    for one in (error, wrapped):
        message = fork_server._failure("a@1", one)["message"]
        assert ("more memory than is free" in message) is is_of_memory


def test_a_fork_server_that_is_killed_is_replaced(ground: Sandbox, hanging: tuple[str, VersionId]) -> None:
    with ThreadPoolExecutor(1) as pool, stopped_at_the_end(ground):
        proof = pool.submit(ground.prove, *hanging, 1, LIMIT_S)
        child = wait_for_child(ground)
        assert ground._fork_server is not None
        ground._fork_server.kill()
        ground._fork_server.wait()
        assert ground.prove(str(MODELS), ONE, 1, LIMIT_S)
        assert not proof.done(), "it goes on"
        ground.stop()
        with pytest.raises(ModelNotReady, match="the server ends"):
            proof.result(LIMIT_S)
    wait_until_ended(child)


def test_nothing_is_left_when_whoever_asked_is_gone(hanging: tuple[str, VersionId]) -> None:
    code = (
        "import sys, threading, time; from serve.rollout.sandbox import Sandbox\n"
        "from model_store.names import parse_version\n"
        "ground = Sandbox()\n"
        "work = (sys.argv[1], parse_version(sys.argv[2]), 1, 900.0)\n"
        "threading.Thread(target=ground.prove, args=work, daemon=True).start()\n"
        "time.sleep(900)\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", code, *map(str, hanging)], cwd=ROOT)
    parent = psutil.Process(asking.pid)
    deadline = time.monotonic() + LIMIT_S
    while len(parent.children(recursive=True)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes = parent.children(recursive=True)
    os.kill(asking.pid, signal.SIGKILL)
    asking.wait()
    wait_until_ended(*processes)
