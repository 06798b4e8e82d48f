"""Test the log of a job, from its file or through the dashboard, to its end."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError

from batch.jobs import job_log
from batch.jobs.job_log import JobState, read_part
from model_store.errors import ClusterError

NAME = "job-driver-job-1.log"


class Client:
    """A client of a dashboard that reports the end of the job after `alive` requests."""

    def __init__(self, alive: int) -> None:
        self.asked, self._alive = 0, alive

    def get_job_info(self, job: str) -> Any:
        assert job == "job-1"
        self.asked += 1
        return SimpleNamespace(status=SimpleNamespace(is_terminal=lambda: self.asked > self._alive))

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield f"{job} by the dashboard\n"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_log, "LOOK_S", 0.001)
    monkeypatch.setattr(job_log, "ASK_S", 0.005)


def _unchanged(_: list[Any]) -> None:
    """No job is lost."""


async def all_of(client: Client, folder: Path | None) -> str:
    return "".join([text async for text in job_log.job_log(JobState(client, "job-1", _unchanged), folder)])


async def test_what_was_written_before_the_end_is_read_to_the_last_byte(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes("a\nmäh\nno line end".encode())
    assert await all_of(Client(alive=0), tmp_path) == "a\nmäh\nno line end\n"


async def test_a_line_that_is_half_written_waits_for_its_end(tmp_path: Path) -> None:
    file, seen = tmp_path / NAME, list[str]()
    file.write_bytes("whole\nm\N{LATIN SMALL LETTER A WITH DIAERESIS}".encode()[:-1])  # half a character

    async def follow() -> None:
        async for text in job_log.job_log(JobState(Client(alive=10**9), "job-1", _unchanged), tmp_path):
            seen.append(text)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    assert seen == ["whole\n"]
    with file.open("ab") as log:
        log.write("ä".encode()[1:] + b"h\n")
    await asyncio.sleep(0.05)
    assert seen == ["whole\n", "mäh\n"]
    following.cancel()


@pytest.mark.parametrize("known", [True, False])
async def test_without_a_file_the_dashboard_tells(tmp_path: Path, known: bool) -> None:
    folder = tmp_path if known else None  # with a folder: a job that ended before it began
    assert await all_of(Client(alive=0), folder) == "job-1 by the dashboard\n"


async def test_a_dashboard_that_is_busy_for_a_while_does_not_end_the_following(tmp_path: Path) -> None:
    client = Busy(answers_from=4)
    (tmp_path / NAME).write_bytes(b"line\n")
    assert await all_of(client, tmp_path) == "line\n"
    assert client.asked == 4


async def test_a_dashboard_that_is_gone_is_an_error_that_names_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "SILENT_S", 0.02)
    (tmp_path / NAME).write_bytes(b"line\n")
    with pytest.raises(ClusterError, match="job job-1 may still run"):
        await all_of(Busy(answers_from=10**9), tmp_path)


class Busy(Client):
    """A client that fails at first, and then reports the end of the job."""

    def __init__(self, answers_from: int) -> None:
        super().__init__(alive=0)
        self._from = answers_from

    def get_job_info(self, job: str) -> Any:
        found = super().get_job_info(job)
        if self.asked < self._from:
            raise AuthenticationError("expired")  # of Ray: neither RuntimeError nor OSError
        return found


async def test_a_dashboard_that_closes_the_log_is_an_error_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    async def closed(_: str) -> AsyncIterator[str]:
        yield "one\n"
        raise RuntimeError("WebSocket connection closed unexpectedly")

    client = Client(alive=10**9)
    monkeypatch.setattr(client, "tail_job_logs", closed)
    with pytest.raises(ClusterError, match="log of job job-1, which may still run: WebSocket"):
        await all_of(client, None)


LINES = b"one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("after", "most", "text", "following"),
    [(0, 9, "one\ntwo\n", 8), (8, 9, "three\n", 14), (99, 9, "", 14), (None, 8, "three\n", 14), (0, 2, "on", 2)],
)
def test_a_part_of_a_log_has_whole_lines(after: int | None, most: int, text: str, following: int) -> None:
    part = read_part("job-1", io.BytesIO(LINES), after, most)
    assert (part.text, part.next) == (text, following)


def test_a_line_that_is_being_written_waits_for_its_end() -> None:
    assert read_part("job-1", io.BytesIO(LINES + b"four"), 8, 100).next == len(LINES)
