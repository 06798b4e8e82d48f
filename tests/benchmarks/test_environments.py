"""Environments of peers, without installing anything: what is run is recorded in place."""

from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.environments import environment, made, packages


class Installer:
    """Makes a `python` for `-m venv`, and fails `pip` as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.commands = failures, list[list[str]]()

    def __call__(self, command: list[str]) -> str:
        self.commands.append(command)
        if "list" in command:
            return '[{"name": "numpy", "version": "2.4.6"}, {"name": "pip", "version": "26.0"}]'
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.write_bytes(b"x" * (3 << 20))
        elif self.failures:
            self.failures -= 1
            raise RuntimeError("no such package")
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


def test_what_was_pulled_in_is_told_too(tmp_path: Path, installer: Installer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environments.environment, "__defaults__", (tmp_path / "cache",))
    found = packages(peer(tmp_path, "numpy==2.4.6\n"))
    assert found == {"numpy": "2.4.6", "pip": "26.0"}
    assert Path(installer.commands[-1][0]).is_relative_to(tmp_path / "cache")


def test_other_pins_are_another_one(tmp_path: Path, installer: Installer):
    first = environment(peer(tmp_path, "numpy==2.4.6\n"), tmp_path / "cache")
    second = environment(peer(tmp_path, "numpy==2.4.5\n"), tmp_path / "cache")
    assert first != second
    assert first.exists()
    assert environment(peer(tmp_path, "numpy==2.4.6\n"), tmp_path / "cache") == first
    assert len(installer.commands) == 4


def test_another_python_is_another_one(tmp_path: Path, installer: Installer, monkeypatch: pytest.MonkeyPatch):
    folder = peer(tmp_path, "numpy==2.4.6\n")
    first = environment(folder, tmp_path / "cache")
    monkeypatch.setattr(environments.platform, "python_version", lambda: "3.99.1")
    assert environment(folder, tmp_path / "cache") != first


def test_a_half_made_one_is_made_again(tmp_path: Path, installer: Installer):
    installer.failures = 1
    folder = peer(tmp_path, "no-such==1\n")
    with pytest.raises(RuntimeError, match="no such package"):
        environment(folder, tmp_path / "cache")
    assert environment(folder, tmp_path / "cache").exists()
    assert sum("venv" in command for command in installer.commands) == 2
