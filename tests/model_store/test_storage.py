"""A folder behaves the same on a disk and on an fsspec URL."""

import pickle
import uuid
from pathlib import Path

import pytest

from model_store.errors import StorageUnreachable
from model_store.storage import Folder, absolute, is_local


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4()}")


def test_an_absent_folder_is_empty_and_not_an_error(folder: Folder) -> None:
    assert folder.names("nothing") == []
    assert not folder.exists("nothing")
    folder.remove("nothing")
    with pytest.raises(FileNotFoundError):
        folder.read("nothing/file")


def test_what_is_written_is_read_listed_and_removed(folder: Folder) -> None:
    folder.write("deer/1/a.txt", b"one")
    folder.write("deer/2/b.txt", b"two")
    assert folder.read("deer/1/a.txt") == b"one"
    assert folder.names("deer") == ["1", "2"]
    assert folder.names("deer/1") == ["a.txt"]
    folder.write("deer/1/a.txt", b"replaced")
    assert folder.read("deer/1/a.txt") == b"replaced"
    folder.remove("deer/1")
    assert not folder.exists("deer/1/a.txt")
    assert folder.read("deer/2/b.txt") == b"two"


def test_below_a_file_there_is_nothing(folder: Folder) -> None:
    folder.write("notes.txt", b"mine")
    assert folder.names("notes.txt") == []
    assert not folder.exists("notes.txt/aliases.json")
    with pytest.raises(FileNotFoundError, match=r"notes\.txt/aliases\.json"):
        folder.read("notes.txt/aliases.json")


@pytest.mark.parametrize("error", [PermissionError, IsADirectoryError, BlockingIOError])
def test_a_file_that_cannot_be_read_is_an_error_of_the_storage(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error("not for you")

    monkeypatch.setattr(folder.fs, "cat_file", refuse)
    with pytest.raises(StorageUnreachable, match=r"cannot read .*/a\.txt: not for you") as raised:
        folder.read("a.txt")
    assert isinstance(raised.value.__cause__, error)


def test_a_file_that_memory_cannot_hold_is_no_fault_of_the_storage(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(folder.fs, "cat_file", large)
    with pytest.raises(MemoryError):
        folder.read("a.txt")


def test_a_folder_in_place_of_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "aliases.json").mkdir()
    with pytest.raises(StorageUnreachable, match="Is a directory"):
        Folder(str(tmp_path)).read("aliases.json")


def test_a_folder_travels_between_processes(folder: Folder) -> None:
    folder.write("a", b"1")
    again = pickle.loads(pickle.dumps(folder))
    assert again == folder
    assert again.read("a") == b"1"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path))
    folder.write("aliases.json", b"old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        folder.write("aliases.json", b"new")
    assert folder.read("aliases.json") == b"old"
    assert folder.names() == ["aliases.json"]


def test_an_unknown_protocol_says_how_to_get_s3() -> None:
    with pytest.raises(StorageUnreachable, match=r"resight\[s3\]"):
        Folder("nosuch://bucket/models")


def test_a_place_that_fails_is_unreachable_and_not_empty(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    for name in ("ls", "exists", "cat_file"):
        monkeypatch.setattr(folder.fs, name, away, raising=True)
    for look in (folder.names, folder.exists, folder.read):
        with pytest.raises(StorageUnreachable, match="no route to host"):
            look("deer")


@pytest.mark.parametrize(
    ("url", "local"),
    [("models", True), ("/models", True), ("file:///models", True), ("s3://b/models", False)],
)
def test_local_paths_become_absolute_and_urls_stay(url: str, local: bool) -> None:
    assert is_local(url) is local
    assert absolute(url) == (str(Path(url.removeprefix("file://")).resolve()) if local else url)
    assert absolute("s3://b/models/") == "s3://b/models"
