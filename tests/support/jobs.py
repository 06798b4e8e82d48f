"""Jobs that are not started: they record what a command asks of its host."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from batch.jobs.control import JobOutcome
from batch.jobs.job_log import LogPart, read_part

WELL = JobOutcome("SUCCEEDED", 0, "")


class FakeJobs:
    """Implements `batch.jobs.control.Jobs`. Ids are job-1, job-2 …; `lines` are the log of each of them."""

    where = "runs nowhere"

    def __init__(self, *lines: str, outcome: JobOutcome = WELL) -> None:
        self.lines, self.outcome = lines, outcome
        self.submitted: list[tuple[str, str, list[str], bool]] = []
        self.alive: set[str] = set()
        self.prefix = "job of"
        self.stopped: list[str] = []

    def submit(self, module: str, run_id: str, words: Sequence[str], followed: bool) -> str:
        self.submitted.append((module, run_id, list(words), followed))
        return f"job-{len(self.submitted)}"

    def tail(self, job: str, on_line: Callable[[str], None], enough: Callable[[], bool]) -> JobOutcome:
        for line in self.lines:
            on_line(line)
        return self.outcome

    def stop(self, run_id: str) -> str | None:
        self.stopped.append(run_id)
        return f"{self.prefix} {run_id}" if run_id in self.alive else None

    def job_of(self, run_id: str = "") -> tuple[str, str] | None:
        run = run_id or max(self.alive, default="")
        return (run, f"{self.prefix} {run}") if run in self.alive else None

    def log(self, run_id: str, after: int | None, max_bytes: int) -> LogPart | None:
        if self.job_of(run_id) is None:
            return None
        text = "\n".join(self.lines) + "\n"
        return read_part(f"{self.prefix} {run_id}", io.BytesIO(text.encode()), after, max_bytes)

    def running(self) -> set[str]:
        return self.alive

    def interrupted(self, run_ids: Sequence[str]) -> str:
        return f"interrupted: {', '.join(run_ids)}"
