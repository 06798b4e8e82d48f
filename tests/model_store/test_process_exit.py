"""Test how a process ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from model_store.process_exit import lasting_stops, require_no_stop

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


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests run in the background
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, former)


def test_a_stop_in_a_callback_of_native_code_stays_one(ctrl_c: Callable[[], None]) -> None:
    def native() -> None:
        try:
            ctrl_c()
        except KeyboardInterrupt as stop:
            raise ValueError("object registered as 'arrived' failed: KeyboardInterrupt") from stop

    with pytest.raises(KeyboardInterrupt), lasting_stops(), lasting_stops():
        native()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ValueError, match="later"), lasting_stops():
        raise ValueError("later")


def test_a_stop_that_was_ignored_is_raised_at_the_next_look_or_the_end(ctrl_c: Callable[[], None]) -> None:
    done: list[str] = []

    @lasting_stops()
    def ignoring(look: Callable[[], None]) -> None:
        with contextlib.suppress(BaseException):  # as for a finalizer
            ctrl_c()
        look()
        done.append("end")

    for look in (require_no_stop, lambda: done.append("went on")):
        with pytest.raises(KeyboardInterrupt):
            ignoring(look)
    assert done == ["went on", "end"]


def test_a_thread_without_handlers_is_left_as_it_is() -> None:
    with ThreadPoolExecutor(1) as threads, contextlib.ExitStack() as block:
        threads.submit(block.enter_context, lasting_stops()).result()
