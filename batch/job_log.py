"""The log of a job as it is written: from its file where that is on this machine, else through Ray's dashboard.

job_log(JobState(client, id), folder) -> pieces of text, until the job has ended
The dashboard looks once a second and hands over what it saw: at the end of a run that is two seconds of waiting.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from model_store.errors import ClusterError

LOOK_S, ASK_S = 0.1, 1.0
"""How often the file is looked at, and how often the dashboard is asked whether the job has ended."""
SILENT_S = 60.0
"""Without an answer of the dashboard, until it is taken for gone."""
WAIT_S = 20.0
"""For the file to be there; a job that cannot begin has none, and has ended before."""


class JobState:
    """Ray's record of a job once it has ended, asked for in a thread that never delays the end of the process.

    A dashboard that is busy answers after seconds, and that is not the end of the run.
    """

    def __init__(self, client: Any, submission_id: str) -> None:
        self.client, self.submission_id = client, submission_id
        self._info: Any = None
        self._error: Exception | None = None
        self._answered_s = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._ask, daemon=True).start()

    def end(self) -> Any:
        """Return the record, or None while the job runs. Raises ClusterError after SILENT_S without an answer."""
        if self._error and time.monotonic() - self._answered_s > SILENT_S:
            raise ClusterError(
                f"the cluster has not answered for {SILENT_S:.0f} s, and job {self.submission_id} may go on: "
                f"{self._error}; see 'resight status' and 'resight runs list'"
            ) from self._error
        return self._info

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _ask(self) -> None:
        while self._info is None and not self._closed.wait(ASK_S):
            try:
                info = self.client.get_job_info(self.submission_id)
            except (RuntimeError, OSError) as error:
                self._error = error
                continue
            self._error, self._answered_s = None, time.monotonic()
            self._info = info if info.status.is_terminal() else None


async def job_log(job: JobState, folder: Path | None) -> AsyncGenerator[str]:
    """`folder` holds the cluster's logs, None where it is not known. Raises ClusterError, and what the
    client raises.
    """
    file = folder / f"job-driver-{job.submission_id}.log" if folder else None
    if file is None or not await _appears(file, job):
        async for text in job.client.tail_job_logs(job.submission_id):
            yield text
        return
    with file.open("rb") as log:
        rest, ended = b"", False
        while True:
            more = log.read()
            if more:
                whole, line_end, rest = (rest + more).rpartition(b"\n")
                if line_end:
                    yield (whole + line_end).decode(errors="replace")
            elif ended:
                break
            else:
                await asyncio.sleep(LOOK_S)
            ended = job.end() is not None
        if rest:
            yield rest.decode(errors="replace") + "\n"


async def _appears(file: Path, job: JobState) -> bool:
    """Whether it is there before the job has ended, or has waited for long."""
    began_s = time.monotonic()
    while not file.exists():
        if time.monotonic() - began_s > WAIT_S or job.end() is not None:
            return file.exists()
        await asyncio.sleep(LOOK_S)
    return True
