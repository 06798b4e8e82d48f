"""What goes wrong in one commit of one writer, and when exactly.

The point of a commit:   before | data | log | ack | after
                         nothing is written; its data files are being written; they are, and its log entry is
                         about to be; the entry is there, unacknowledged; the driver has had its answer
On a local disk the kernel itself sends the signal, from within delta-rs's own call (file notifications of
Linux); on S3 the proxy does (`s3_faults.py`). Nothing is left to timing.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from deltalake import DeltaTable

from model_store.storage import is_local

Point = Literal["before", "data", "log", "ack", "after"]
Act = Literal["kill", "term", "lose", "busy"]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


@dataclass(frozen=True)
class Fault:
    """In the `nth` commit to `table` that replaces rows, or does not: SIGKILL or SIGTERM to the driver; the
    answer is lost; or the server is busy (503) for so many `times`, before it does what it was asked or after.
    """

    point: Point
    act: Act = "kill"
    table: str = "results"
    nth: int = 2
    replace: bool = False
    times: int = 1


class Faulty:
    """Stands in for `archive.delta.tables._commit`. `orders` is the file that the S3 proxy reads."""

    def __init__(self, fault: Fault, commit: Any, orders: str) -> None:
        self._fault, self._commit, self._orders = fault, commit, orders
        self._seen = 0

    def __call__(self, table: DeltaTable, rows: Any, writer: str, replace: Any) -> None:
        fault = self._fault
        of_table = table.table_uri.rstrip("/").endswith(f"/{fault.table}")
        self._seen += of_table and bool(replace) == fault.replace
        if not of_table or bool(replace) != fault.replace or self._seen != fault.nth:
            return self._commit(table, rows, writer, replace)
        if fault.point == "before":
            os.kill(os.getpid(), SIGNALS[fault.act])
        local = is_local(table.table_uri)
        if fault.point in ("data", "log", "ack"):
            if not local:
                order = asdict(fault) | {"pid": os.getpid()}
                Path(self._orders).write_text(json.dumps(order))
            elif fault.act != "lose":
                _signal_at(fault, table, rows)
        self._commit(table, rows, writer, replace)
        if fault.point == "after":
            os.kill(os.getpid(), SIGNALS[fault.act])
        if local and fault.act == "lose":
            raise OSError("reset by peer")
        return None


def _signal_at(fault: Fault, table: DeltaTable, rows: Any) -> None:
    """delta-rs stages a file beside its place, links it there and removes the staged one."""
    root = Path(table.table_uri.removeprefix("file://"))
    partition = [f"{name}={rows[name][0]}" for name in table.metadata().partition_columns]
    data = root.joinpath(*partition)
    folder = data if fault.point == "data" else root / "_delta_log"
    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    fcntl.fcntl(handle, fcntl.F_SETSIG, SIGNALS[fault.act])
    when = fcntl.DN_DELETE if fault.point == "ack" else fcntl.DN_CREATE
    fcntl.fcntl(handle, fcntl.F_NOTIFY, when)
