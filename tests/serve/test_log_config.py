"""Log lines are JSON for programs, and text on a terminal."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from serve.log_config import configure_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_line_is_json_except_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: on_terminal)
    configure_logs()
    structlog.get_logger("resight.test").info("not_detected", model="\x1b[2J\u202e")  # as clients may send
    line = capsys.readouterr().out
    assert line.isascii()
    assert line.removesuffix("\n").isprintable()
    if on_terminal:
        assert "[info     ] not_detected" in line
    else:
        assert json.loads(line)["event"] == "not_detected"


@pytest.mark.parametrize("on_terminal", [True, False])
def test_an_exception_is_logged_without_local_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: on_terminal)
    configure_logs()
    token = "".join(("sec", "ret"))
    try:
        raise ValueError(len(token))
    except ValueError:
        structlog.get_logger("resight.test").exception("poll_failed")
    log = capsys.readouterr().out
    assert "ValueError: 6" in log
    assert token not in log


def test_a_line_is_one_write_so_that_no_other_thread_prints_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray prints of dead processes in a thread of its own."""
    configure_logs(stream := io.StringIO())
    writes: list[str] = []
    monkeypatch.setattr(stream, "write", writes.append)
    structlog.get_logger("resight.test").info("detected")
    assert [text[-1] for text in writes] == ["\n"]


@pytest.mark.parametrize("name", ["write", "flush"])
def test_a_full_disk_loses_lines_and_fails_no_request(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    configure_logs(stream := io.StringIO())
    with monkeypatch.context() as disk:
        disk.setattr(stream, name, full)
        structlog.get_logger("resight.test").info("lost")
    structlog.get_logger("resight.test").info("detected")
    assert json.loads(stream.getvalue().splitlines()[-1])["event"] == "detected"
