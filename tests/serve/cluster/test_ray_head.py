"""The Python that starts Ray: by a name that a shell takes without quotes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from model_store.errors import ClusterError
from serve.cluster.head import plain_python


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files."""
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    return room


def environment(place: Path) -> Path:
    """Make an environment without packages; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    return place / "bin" / "python"


def test_a_plain_name_stays(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/srv/resight-1.2/.venv/bin/python3.11")
    assert plain_python() == sys.executable
    assert not list(room.iterdir())


@pytest.mark.parametrize("name", ["wild life/jörg #1", 'it\'s $HOME "a;b"'])
def test_the_folder_of_another_name_is_linked_and_python_finds_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    python = environment(tmp_path / name / ".venv")
    monkeypatch.setattr(sys, "executable", str(python))
    (first, again) = (plain_python(), plain_python())
    assert first == again
    code = "import sys; print(sys.executable); print(sys.prefix)"
    said = subprocess.run(["bash", "-c", f"exec {first} -c '{code}'"], capture_output=True, text=True, check=True)
    executable, prefix = said.stdout.splitlines()
    assert executable == first
    assert Path(prefix).resolve() == (tmp_path / name / ".venv").resolve()


def test_a_folder_for_links_that_others_may_write_to_is_refused(
    tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "a b" / "bin" / "python"))
    (room / f"resight-{os.geteuid()}").mkdir()
    (room / f"resight-{os.geteuid()}").chmod(0o777)
    with pytest.raises(ClusterError, match="with mode 0700"):
        plain_python()
