"""Proofs in throw-away processes: a model harms only its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from model_store.errors import DigestMismatch, ModelError, ModelNotReady, ModelRefused
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.rollout import fork_server
from serve.rollout.sandbox import ROOT, Sandbox, SandboxPool
from tests.fixtures_local import MODELS, add_hanging, motion_store

ONE = VersionId("ssdlite-coco", "1")
LIMIT_S = 60.0


@pytest.fixture
def ground() -> Iterator[Sandbox]:
    ground = Sandbox()
    yield ground
    ground.stop()


@pytest.fixture
def hanging(tmp_path: Path) -> tuple[str, VersionId]:
    store = ModelStore(str(tmp_path))
    return store.url, add_hanging(store)


def children(ground: Sandbox) -> list[psutil.Process]:
    process = ground._fork_server
    return [] if process is None else psutil.Process(process.pid).children()


def wait_for_child(ground: Sandbox) -> psutil.Process:
    deadline = time.monotonic() + LIMIT_S
    while not children(ground):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return children(ground)[0]


def test_a_sound_version_is_proved_again_and_again_each_in_its_own_process(ground: Sandbox) -> None:
    first = ground.prove(str(MODELS), ONE, 1, LIMIT_S)
    second = ground.prove(str(MODELS), ONE, 1, LIMIT_S)
    assert first.rss_bytes > 0
    assert second.seconds > 0
    assert children(ground) == []


def test_what_a_version_is_refused_with_is_said_in_our_words(ground: Sandbox, tmp_path: Path) -> None:
    store = motion_store(tmp_path, "1")
    (tmp_path / "blobs" / "1" / "config.json").write_text("{}")
    with pytest.raises(DigestMismatch, match=r"config\.json has sha256"):
        ground.prove(store.url, VersionId("blobs", "1"), 1, LIMIT_S)
    with pytest.raises(ModelError, match="blobs@2"):
        ground.prove(store.url, VersionId("blobs", "2"), 1, LIMIT_S)
    assert ground.prove(str(MODELS), ONE, 1, LIMIT_S)


def test_a_proof_that_does_not_end_is_ended(ground: Sandbox, hanging: tuple[str, VersionId]) -> None:
    with pytest.raises(ModelNotReady, match="did not load and probe within 2 s"):
        ground.prove(*hanging, 1, 2.0)
    assert ground.prove(str(MODELS), ONE, 1, LIMIT_S), "the next one is not hurt"


def test_a_proof_that_hangs_is_overtaken(hanging: tuple[str, VersionId]) -> None:
    grounds = SandboxPool()
    first, second, _ = grounds._sandboxes
    try:
        with ThreadPoolExecutor(1) as pool:
            proof = pool.submit(grounds.prove, *hanging, 1, 10 * LIMIT_S)
            child = wait_for_child(first)
            assert grounds.prove(str(MODELS), ONE, 1, LIMIT_S)
            assert second._fork_server is not None
            assert not proof.done()
            child.kill()
            with pytest.raises(ModelRefused, match="ended the process"):
                proof.result(LIMIT_S)
        assert grounds.prove(str(MODELS), ONE, 1, LIMIT_S)
    finally:
        grounds.stop()


def test_the_end_of_the_server_ends_proofs_that_run_and_that_wait(
    ground: Sandbox, hanging: tuple[str, VersionId]
) -> None:
    with ThreadPoolExecutor(1) as ending, ThreadPoolExecutor(2) as proving:
        pending = [proving.submit(ground.prove, *hanging, 1, 900.0) for _ in range(2)]
        child, end = wait_for_child(ground), ending.submit(ground.stop)
        try:
            end.result(LIMIT_S)
        except TimeoutError:
            child.kill()
            raise
        for proof in pending:
            with pytest.raises(ModelNotReady, match="the server ends"):
                proof.result(LIMIT_S)
    assert ground._fork_server is None


def test_short_proofs_share_one_process() -> None:
    grounds = SandboxPool()
    try:
        for _ in range(3):
            grounds.prove(str(MODELS), ONE, 1, LIMIT_S)
        assert [ground._fork_server is not None for ground in grounds._sandboxes] == [True, False, False]
    finally:
        grounds.stop()


def test_files_that_are_not_those_that_were_asked_for_are_not_proved(ground: Sandbox) -> None:
    with pytest.raises(DigestMismatch, match="were replaced a moment ago"):
        ground.prove(str(MODELS), ONE, 1, LIMIT_S, "0" * 64)
    digest = ModelStore(str(MODELS)).describe(ONE).digest
    assert ground.prove(str(MODELS), ONE, 1, LIMIT_S, digest).digest == digest


CROWDED = """
import pathlib, sys
from serve.rollout import fork_server
fork_server.free_memory_bytes = lambda: int(pathlib.Path(sys.argv[1]).read_text())
fork_server.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no other system bounds a process's memory")
@pytest.mark.parametrize(
    "free_mib",
    [
        pytest.param(0, id="none to read the weights"),
        pytest.param(30, id="none to load them"),
        pytest.param(65, id="none to run them"),
    ],
)
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


@pytest.mark.parametrize("who", ["child", "fork server"])
def test_a_process_that_is_killed_is_the_version_s_fault(
    ground: Sandbox, hanging: tuple[str, VersionId], who: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        proof = pool.submit(ground.prove, *hanging, 1, LIMIT_S)
        child = wait_for_child(ground)
        victim = child if who == "child" else child.parent()
        assert victim is not None
        victim.send_signal(signal.SIGKILL)
        with pytest.raises(ModelRefused, match="ended the process that loaded it"):
            proof.result(LIMIT_S)
    assert ground.prove(str(MODELS), ONE, 1, LIMIT_S)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_nothing_is_left_when_whoever_asked_is_gone(hanging: tuple[str, VersionId]) -> None:
    code = (
        "import sys, threading, time; from serve.rollout.sandbox import Sandbox\n"
        "from model_store.names import parse_version\n"
        "ground = Sandbox()\n"
        "work = (sys.argv[1], parse_version(sys.argv[2]), 1, 60.0)\n"
        "threading.Thread(target=ground.prove, args=work, daemon=True).start()\n"
        "time.sleep(60)\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", code, *map(str, hanging)], cwd=ROOT)
    parent = psutil.Process(asking.pid)
    deadline = time.monotonic() + LIMIT_S
    while len(parent.children(recursive=True)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes = parent.children(recursive=True)
    os.kill(asking.pid, signal.SIGKILL)
    asking.wait()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []
