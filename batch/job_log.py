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

LOOK_S, ASK_S = 0.1, 1.0
"""How often the file is looked at, and how often the dashboard is asked whether the job has ended."""
WAIT_S = 20.0
"""For the file to be there; a job that cannot begin has none, and has ended before."""


async def job_log(client: Any, submission_id: str, folder: Path | None) -> AsyncGenerator[str]:
    """`folder` holds the cluster's logs, None where it is not known. Raises what the client raises."""
    file = folder / f"job-driver-{submission_id}.log" if folder else None
    if file is None or not await _appears(client, submission_id, file):
        async for text in client.tail_job_logs(submission_id):
            yield text
        return
    with file.open("rb") as log:
        rest = b""
        asked_s, ended = time.monotonic(), False
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
            if not ended and time.monotonic() - asked_s > ASK_S:
                ended, asked_s = _has_ended(client, submission_id), time.monotonic()
        if rest:
            yield rest.decode(errors="replace") + "\n"


async def _appears(client: Any, submission_id: str, file: Path) -> bool:
    """Whether it is there before the job has ended, or has waited for long."""
    began_s = asked_s = time.monotonic()
    while not file.exists():
        now_s = time.monotonic()
        if now_s - began_s > WAIT_S:
            return False
        if now_s - asked_s > ASK_S:
            asked_s = now_s
            if _has_ended(client, submission_id):
                return file.exists()
        await asyncio.sleep(LOOK_S)
    return True


def _has_ended(client: Any, submission_id: str) -> bool:
    return bool(client.get_job_info(submission_id).status.is_terminal())
