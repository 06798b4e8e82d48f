"""A file of tokens, and the clocks of the guard, which tests move."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.auth import guard as access_module
from serve.auth.tokens import TokenFile


class Clock:
    """What `access` takes for the time, s."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(access_module, "monotonic", clock)
    monkeypatch.setattr(access_module, "time", clock)
    return clock


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(str(tmp_path / "tokens.json"))
