"""CPU seconds and memory of a tree of processes. CPU time is waited for, never wall time."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.watch import Watch

BURN = """
import time
while time.process_time() < {seconds}: pass
"""
WAIT = """
import sys
print("ready", flush=True)
sys.stdin.readline()
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
sys.stdin.readline()
child.communicate(b"\\n")
print("the child ended", flush=True)
sys.stdin.readline()
"""


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", *words], **pipes)  # pyright: ignore
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout
    assert process.stdout.readline().strip() == line


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_memory_is_of_the_whole_tree_and_the_peak():
    hold = "much = bytearray(b'x') * (150 << 20)\n"
    with started(PARENT, hold + WAIT) as process:
        with Watch(process.pid, every_s=0.02) as watch:
            while watch.peak_pss_mib < 150:
                time.sleep(0.02)
            tell(process)
            heard(process, "ready")
            heard(process, "the child ended")
            peak = watch.peak_pss_mib
        assert watch.peak_pss_mib == peak >= 150


def test_the_figures_stay_when_all_is_over():
    with started(BURN.format(seconds=0.5) + WAIT) as process:
        with Watch(process.pid, every_s=0.02) as watch:
            heard(process, "ready")
            while watch.cpu_s < 0.4:
                time.sleep(0.02)
            tell(process)
            process.wait()
        assert watch.cpu_s >= 0.4
        assert Path(f"/proc/{process.pid}").exists() is False
