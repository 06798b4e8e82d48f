"""Apply the faults of a schedule, each for its time.

inject(faults, host, keys, seconds) runs until the last one has ended. Faults that this machine cannot apply are
noted in the books.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from benchmarks.endurance.host import FREE_MIB, Host
from benchmarks.endurance.schedule import Fault
from benchmarks.endurance.work import Keys

SHIFTS_S = (-3600, -120, 120, 3600, 86_400)
Undo = Callable[[], object]


def inject(faults: Sequence[Fault], host: Host, keys: Keys, seconds: float) -> None:
    """Apply each fault at its time in a thread; return after `seconds`, when the last fault has ended."""
    began_s = time.monotonic()
    threads: list[threading.Thread] = []
    for fault in faults:
        time.sleep(max(0.0, began_s + fault.at_s - time.monotonic()))
        threads.append(threading.Thread(target=_apply, args=(fault, host, keys)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    time.sleep(max(0.0, began_s + seconds - time.monotonic()))


def _apply(fault: Fault, host: Host, keys: Keys) -> None:
    if fault.kind in host.missing:
        host.books.write("skipped", fault=fault.kind, reason=host.missing[fault.kind])
        return
    begin = _s3 if fault.kind.startswith("s3_") else FAULTS[fault.kind]
    note, undo = begin(fault, host, keys)
    host.books.write("fault", fault=fault.kind, seconds=fault.seconds, note=note)
    time.sleep(fault.seconds)
    undo()
    host.books.write("fault_over", fault=fault.kind)


def _nothing() -> None:
    pass


def _victim(fault: Fault, host: Host) -> psutil.Process | None:
    """Choose a role by `role`, then a process of it by `pick`."""
    roles: defaultdict[str, list[psutil.Process]] = defaultdict(list)
    for process in host.processes():
        with contextlib.suppress(psutil.Error):
            roles[role_of(process)].append(process)
    if not roles:
        return None
    names = sorted(roles)
    of_role = sorted(roles[names[int(fault.role * len(names))]], key=lambda process: process.pid)
    return of_role[int(fault.pick * len(of_role))]


def role_of(process: psutil.Process) -> str:
    words = process.cmdline()
    return " ".join(Path(word).name for word in words[:4])[:60] or process.name()


def _kill(fault: Fault, host: Host, keys: Keys) -> tuple[str, Undo]:
    victim = _victim(fault, host)
    if victim is None:
        return "no process", _nothing
    with contextlib.suppress(psutil.Error):
        note = f"{victim.pid} {role_of(victim)}"
        victim.kill()
        return note, _nothing
    return "the process had ended", _nothing


def _freeze(fault: Fault, host: Host, keys: Keys) -> tuple[str, Undo]:
    victim = _victim(fault, host)
    if victim is None:
        return "no process", _nothing

    def undo() -> None:
        with contextlib.suppress(psutil.Error):
            victim.send_signal(signal.SIGCONT)

    with contextlib.suppress(psutil.Error):
        note = f"{victim.pid} {role_of(victim)}"
        victim.send_signal(signal.SIGSTOP)
        return note, undo
    return "the process had ended", _nothing


def _fill(leave_mib: int) -> Callable[[Fault, Host, Keys], tuple[str, Undo]]:
    def begin(fault: Fault, host: Host, keys: Keys) -> tuple[str, Undo]:
        ballast, written = host.home / "ballast", 0
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while psutil.disk_usage(str(host.home)).free > leave_mib << 20:
                written += file.write(bytes(1 << 18 if leave_mib else 1 << 12))
        return f"{written >> 20} MiB", lambda: ballast.unlink(missing_ok=True)

    return begin


def _clock(fault: Fault, host: Host, keys: Keys) -> tuple[str, Undo]:
    shift_s = SHIFTS_S[int(fault.pick * len(SHIFTS_S))]
    host.move_clock(shift_s)
    return f"{shift_s:+d} s", lambda: host.move_clock(0)


def _token(fault: Fault, host: Host, keys: Keys) -> tuple[str, Undo]:
    return keys.rotate(), _nothing


def _s3(fault: Fault, host: Host, keys: Keys) -> tuple[str, Undo]:
    host.orders.write_text(fault.kind)
    return "", lambda: host.orders.write_text("")


FAULTS = {
    "kill": _kill,
    "freeze": _freeze,
    "disk_tight": _fill(FREE_MIB // 2),
    "disk_full": _fill(0),
    "clock": _clock,
    "token": _token,
}
