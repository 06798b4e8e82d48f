"""Environments of peers, without installing anything: what is run is recorded in place."""

from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.environments import environment, made


class Installer:
    """Makes a `python` for `-m venv`."""

    def __init__(self) -> None:
        self.commands = list[list[str]]()

    def __call__(self, command: list[str]) -> str:
        self.commands.append(command)
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.write_bytes(b"x" * (3 << 20))
        return ""


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch) -> Installer:
    fake = Installer()
    monkeypatch.setattr(environments, "_run", fake)
    return fake


def peer(place: Path, pins: str) -> Path:
    folder = place / "fake"
    folder.mkdir(exist_ok=True)
    (folder / "requirements.txt").write_text(pins)
    return folder


def test_it_is_made_once_and_found_again(tmp_path: Path, installer: Installer):
    folder = peer(tmp_path, "numpy==2.4.6\n")
    python = environment(folder, tmp_path / "cache")
    assert python.exists()
    assert python.is_relative_to(tmp_path / "cache")
    (_, install) = installer.commands
    assert install[0] == str(python)
    assert install[-1] == str(folder / "requirements.txt")
    assert environment(folder, tmp_path / "cache") == python
    assert len(installer.commands) == 2
    assert made(python).installed_mib == 3.0


def test_other_pins_are_another_one(tmp_path: Path, installer: Installer):
    first = environment(peer(tmp_path, "numpy==2.4.6\n"), tmp_path / "cache")
    second = environment(peer(tmp_path, "numpy==2.4.5\n"), tmp_path / "cache")
    assert first != second
    assert first.exists()
    assert environment(peer(tmp_path, "numpy==2.4.6\n"), tmp_path / "cache") == first
    assert len(installer.commands) == 4
