"""Ray's helpers wait for their turn; what a request passes through does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serve.inference.os_priority import deprioritise_ray_processes, lower_process_priority, lower_thread_priority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies of Linux")
CHILD = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); time.sleep(60)"
HEAD = f"""
import subprocess, sys, time
for name in ("gcs_server", "ray::ServeReplica:detect:Detector", "haproxy"):
    subprocess.Popen([sys.executable, "-c", {CHILD!r}, name])
time.sleep(60)
"""


def policies(process: psutil.Process) -> set[int]:
    """Of all its threads."""
    return {os.sched_getscheduler(int(t)) for t in os.listdir(f"/proc/{process.pid}/task")}


def test_those_below_the_head_wait_but_for_the_way_of_a_request(tmp_path: Path) -> None:
    (tmp_path / "head.py").write_text(HEAD)
    head = psutil.Popen([sys.executable, tmp_path / "head.py"], start_new_session=True)
    try:
        children: dict[str, psutil.Process] = {}
        deadline_s = time.monotonic() + 30
        while len(children) < 3 or any(p.num_threads() < 2 for p in children.values()):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
            named = {"".join(p.cmdline()[-1:]): p for p in head.children()}  # none before its exec
            children = {name.rpartition(":")[2]: p for name, p in named.items() if name}
        deprioritise_ray_processes(head.pid)
        assert policies(psutil.Process(head.pid)) == {os.SCHED_BATCH}
        assert policies(children["gcs_server"]) == {os.SCHED_BATCH}
        assert policies(children["Detector"]) == policies(children["haproxy"]) == {os.SCHED_OTHER}
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def test_a_head_that_has_ended_is_no_error() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    deprioritise_ray_processes(done.pid)


@pytest.mark.parametrize("error", [PermissionError, ProcessLookupError])
def test_where_no_priority_may_be_set_all_keep_theirs(monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    """A unit of systemd with `SystemCallFilter=~@resources` forbids it."""

    def refuse(*_: int) -> None:
        raise error

    monkeypatch.setattr(os, "setpriority", refuse)
    lower_thread_priority()
    lower_process_priority()


def test_a_replica_interrupts_at_once_whoever_has_started_it() -> None:
    program = (
        "import os, threading\n"
        "from serve.inference.os_priority import set_normal_scheduling, set_scheduling\n"
        "set_scheduling(os.getpid(), 'SCHED_BATCH')\n"
        "before = os.sched_getscheduler(0)\n"
        "set_normal_scheduling()\n"
        "then = []\n"
        "one = threading.Thread(target=lambda: then.append(os.sched_getscheduler(0)))\n"
        "one.start(); one.join()\n"
        "print(before, os.sched_getscheduler(0), then[0])\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(os.SCHED_BATCH), str(os.SCHED_OTHER), str(os.SCHED_OTHER)]
