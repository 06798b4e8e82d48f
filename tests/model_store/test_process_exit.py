"""Test how a process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

BODY = """
import atexit, sys
from model_store.process_exit import final_exit

class Unloaded:
    def __del__(self):
        print("unloaded", file=sys.__stderr__, flush=True)

kept = Unloaded()
atexit.register(print, "handler")
print("work")
with final_exit():
    {end}
"""


@pytest.mark.parametrize(("end", "code"), [("sys.exit(7)", 7), ("sys.exit()", 0)])
def test_it_ends_at_once_with_its_code_and_its_output(end: str, code: int) -> None:
    done = ended(end)
    assert (done.returncode, done.stdout, done.stderr) == (code, "work\nhandler\n", "")


@pytest.mark.parametrize(("end", "code", "said"), [("sys.exit('why')", 1, "why"), ("1 / 0", 1, "ZeroDivisionError")])
def test_what_python_must_print_it_prints(end: str, code: int, said: str) -> None:
    done = ended(end)
    assert (done.returncode, done.stdout) == (code, "work\nhandler\n")
    assert said in done.stderr


def ended(end: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BODY.format(end=end)], capture_output=True, text=True, timeout=60)
