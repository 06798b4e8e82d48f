"""The log of a job as it is written: from its file where that is on this machine, else through Ray's dashboard.

job_log(client, id, folder) -> pieces of text, until the job has ended
The dashboard looks once a second and hands over what it saw: at the end of a run that is two seconds of waiting.
"""

from __future__ import annotations

import asyncio
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


async def job_log(client: Any, submission_id: str, folder: Path | None) -> AsyncGenerator[str]:
    """`folder` holds the cluster's logs, None where it is not known. Raises ClusterError, and what the
    client raises.
    """
    file = folder / f"job-driver-{submission_id}.log" if folder else None
    asked = _Asked(client, submission_id)
    if file is None or not await _appears(file, asked):
        async for text in client.tail_job_logs(submission_id):
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
            ended = ended or await asked.ended()
        if rest:
            yield rest.decode(errors="replace") + "\n"


async def _appears(file: Path, asked: _Asked) -> bool:
    """Whether it is there before the job has ended, or has waited for long."""
    began_s = time.monotonic()
    while not file.exists():
        if time.monotonic() - began_s > WAIT_S or await asked.ended():
            return file.exists()
        await asyncio.sleep(LOOK_S)
    return True


class _Asked:
    """Whether a job has ended, asked now and then; a dashboard that is busy for a while is no end of the run."""

    def __init__(self, client: Any, submission_id: str) -> None:
        self._client, self._id = client, submission_id
        self._asked_s = self._answered_s = time.monotonic()

    async def ended(self) -> bool:
        """Raises ClusterError after SILENT_S without an answer."""
        now_s = time.monotonic()
        if now_s - self._asked_s < ASK_S:
            return False
        self._asked_s = now_s
        try:
            info = await asyncio.to_thread(self._client.get_job_info, self._id)
        except (RuntimeError, OSError) as error:
            if now_s - self._answered_s > SILENT_S:
                raise ClusterError(
                    f"the cluster has not answered for {SILENT_S:.0f} s, and job {self._id} may go on: {error}; "
                    "see 'resight status' and 'resight runs list'"
                ) from error
            return False
        self._answered_s = now_s
        return bool(info.status.is_terminal())
