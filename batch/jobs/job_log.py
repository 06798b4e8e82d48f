"""Follow the log of a job: from its file if that is on this machine, else through Ray's dashboard.

job_log(JobState(client, id, settle), folder) -> pieces of text, until the job has ended.
The dashboard polls the file once a second, which takes two more seconds at the end of a run.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from model_store.errors import ClusterError
from model_store.frozen import Frozen

LOOK_S, ASK_S = 0.1, 1.0
"""Poll intervals: of the file, and of the job's state at the dashboard."""
SETTLE_S = 10.0
"""Interval between looks at whether the job's node is lost, while Ray reports it as running."""
SILENT_S = 60.0
"""Time without a response after which the dashboard counts as unreachable."""
WAIT_S = 20.0
"""Maximum wait for the file; a job that cannot start has none, and ends before."""


class LogPart(Frozen):
    """Whole lines of the log of `job`; `next` is the byte after them."""

    job: str
    text: str
    next: int


def read_part(job: str, log: BinaryIO, after: int | None, max_bytes: int) -> LogPart:
    """Return the lines of a log from byte `after`, or the last ones if it is None; up to `max_bytes`."""
    size = log.seek(0, os.SEEK_END)
    start = max(0, size - max_bytes) if after is None else min(after, size)
    log.seek(start)
    data = log.read(max_bytes)
    if after is None and start:  # in the middle of a line
        first, _, data = data.partition(b"\n")
        start += len(first) + 1
    whole, line_end, _ = data.rpartition(b"\n")
    kept = whole + line_end or (data if len(data) == max_bytes else b"")
    return LogPart(job=job, text=kept.decode(errors="replace"), next=start + len(kept))


class JobState:
    """Poll Ray's record of a job until the job has ended, in a daemon thread.

    `settle` changes the record of a job that is lost, which Ray may keep as running. A busy dashboard may take seconds
    to respond; that does not mean that the run has ended.
    """

    def __init__(self, client: Any, submission_id: str, settle: Callable[[list[Any]], None]) -> None:
        self.client, self.submission_id, self._settle = client, submission_id, settle
        self._info: Any = None
        self._error: Exception | None = None
        self._answered_s = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._poll, daemon=True).start()

    def end(self) -> Any:
        """Return the record, or None while the job runs. Raises ClusterError after SILENT_S without a response."""
        if self._error and time.monotonic() - self._answered_s > SILENT_S:
            raise ClusterError(
                f"the cluster has not answered for {SILENT_S:.0f} s, and job {self.submission_id} may still run: "
                f"{self._error}; see 'resight status' and 'resight runs list'"
            ) from self._error
        return self._info

    def close(self) -> None:
        self._closed.set()

    def _poll(self) -> None:
        settled_s = time.monotonic()
        while self._info is None and not self._closed.wait(ASK_S):
            try:
                info = self.client.get_job_info(self.submission_id)
                if time.monotonic() - settled_s > SETTLE_S:
                    self._settle([info])
                    settled_s = time.monotonic()
            except Exception as error:  # also of Ray, such as a token that is no longer valid
                self._error = error
                continue
            self._error, self._answered_s = None, time.monotonic()
            self._info = info if info.status.is_terminal() else None


async def job_log(job: JobState, folder: Path | None) -> AsyncGenerator[str]:
    """Yield the log. `folder` has the cluster's logs; None if it is unknown. Raises ClusterError."""
    file = folder / f"job-driver-{job.submission_id}.log" if folder else None
    if file is None or not await _appears(file, job):
        try:
            async for text in job.client.tail_job_logs(job.submission_id):
                yield text
        except Exception as error:  # of Ray or aiohttp
            raise ClusterError(
                f"the cluster no longer sends the log of job {job.submission_id}, which may still run: {error}; see "
                "'resight status' and 'resight runs list'"
            ) from error
        return
    with file.open("rb") as log:
        for text in growing(log, lambda: job.end() is not None):
            if text:
                yield text
            else:
                await asyncio.sleep(LOOK_S)


def growing(log: BinaryIO, ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the whole lines that a log gets, an empty text if there are none, until all are read and `ended()` is true.

    The caller waits after an empty text.
    """
    rest, last = b"", False
    while not last:
        last = ended()  # before reading, so that nothing is missed
        whole, line_end, rest = (rest + log.read()).rpartition(b"\n")
        yield (whole + line_end).decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace") + "\n"


async def _appears(file: Path, job: JobState) -> bool:
    """Wait for the file, until the job has ended or for WAIT_S; return whether it exists."""
    began_s = time.monotonic()
    while not file.exists():
        if time.monotonic() - began_s > WAIT_S or job.end() is not None:
            return file.exists()
        await asyncio.sleep(LOOK_S)
    return True
