"""No other user can write where our sockets, locks and start folders are."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from model_store.errors import ClusterError
from serve.cluster.head import start
from serve.cluster.ports import Ports, start_lock
from serve.cluster.private_folder import private_folder
from serve.settings import Settings

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder like the system's: open to everybody, with the sticky bit."""
    system = Path(tempfile.gettempdir())
    for above in (tmp_path, *tmp_path.parents):
        if above == system or not above.is_relative_to(system):
            break
        above.chmod(0o755)
    folder = tmp_path / "t"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    return folder


def by_nobody(command: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command, in which $0 is the path, as another user."""
    return subprocess.run(
        ["/bin/sh", "-c", command, str(path)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_folder_is_made_once_for_this_user_alone(temporary: Path) -> None:
    folder = private_folder()
    assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, os.geteuid())
    assert folder.parent == temporary
    assert private_folder() == folder


@as_root
def test_another_user_can_neither_look_into_it_nor_replace_it(temporary: Path) -> None:
    folder = private_folder()
    for command in ('ls "$0"', 'touch "$0/duckdb.py"', 'mv "$0" "$0-old"'):
        done = by_nobody(command, folder)
        assert done.returncode != 0
        assert "denied" in done.stderr or "not permitted" in done.stderr


@as_root
@pytest.mark.parametrize("command", ['mkdir -m 700 "$0"', 'ln -s / "$0"'])
def test_what_another_user_put_there_first_is_refused(temporary: Path, command: str) -> None:
    done = by_nobody(command, temporary / f"resight-{os.geteuid()}")
    assert done.returncode == 0, done.stderr
    with pytest.raises(ClusterError, match=r"must be a folder of uid 0 with mode 0700.*TMPDIR"):
        start(Settings(), Ports(0, 0, 0), "127.0.0.1", 64)
    with pytest.raises(ClusterError, match="must be a folder"), start_lock():
        pass


@pytest.mark.parametrize("which", ["itself", "above"])
def test_a_temporary_folder_in_which_everybody_can_rename_is_refused(temporary: Path, which: str) -> None:
    place = temporary if which == "itself" else temporary.parent
    place.chmod(0o777)
    with pytest.raises(ClusterError, match=f"{place} lets every user replace"):
        private_folder()


@as_root
@pytest.mark.parametrize("which", ["itself", "above"])
def test_a_folder_in_which_another_group_can_rename_is_refused(temporary: Path, which: str) -> None:
    place = temporary if which == "itself" else temporary.parent
    os.chown(place, NOBODY, NOBODY)
    place.chmod(0o775)
    with pytest.raises(ClusterError, match=rf"{place} lets its group .gid {NOBODY}. .*chmod \+t"):
        private_folder()
    place.chmod(0o1775)
    assert private_folder().is_dir()


@as_root
def test_a_folder_of_this_user_that_its_group_may_write_to_gets_the_sticky_bit(temporary: Path) -> None:
    os.chown(temporary, os.geteuid(), NOBODY)
    temporary.chmod(0o775)
    folder = private_folder()
    assert temporary.stat().st_mode & 0o7777 == 0o1775
    done = subprocess.run(["mv", str(folder), f"{folder}-old"], user=NOBODY, group=NOBODY, extra_groups=[], check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_folder_in_which_nobody_else_can_rename_stays_as_it_is(temporary: Path, mode: int) -> None:
    """The modes of /var/tmp, of folders for each user on macOS, and of /."""
    temporary.chmod(mode)
    assert private_folder().parent == temporary
    assert temporary.stat().st_mode & 0o7777 == mode


def test_a_temporary_folder_that_is_too_long_for_sockets_is_refused(temporary: Path) -> None:
    with pytest.raises(ClusterError, match=r"too long for the Unix sockets.*TMPDIR"):
        start(Settings(), Ports(0, 0, 0), "127.0.0.1", 64)
    assert not (Settings().home_path / "cluster.json").exists()


def test_a_link_of_our_own_and_a_looser_mode_are_refused(temporary: Path, tmp_path: Path) -> None:
    folder = temporary / f"resight-{os.geteuid()}"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClusterError, match="it is lrwx"):
        private_folder()
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(ClusterError, match="it is drwxrwx---"):
        private_folder()
