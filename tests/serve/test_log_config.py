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
    structlog.get_logger("resight.test").info("model_loaded", version="deer@1", by="\x1b]0;a\a")
    line = capsys.readouterr().out
    if on_terminal:
        assert "[info     ] model_loaded" in line
        assert "version='deer@1'" in line
        assert "\x1b" not in line, "what a sender has chosen changes no terminal"
    else:
        assert json.loads(line)["event"] == "model_loaded"


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
