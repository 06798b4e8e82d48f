"""A folder behaves the same on a disk and on an fsspec URL."""

import asyncio
import errno
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from archive.delta.tables import Tables
from model_store.errors import ResightError, StorageFull, StorageUnreachable
from model_store.storage import Folder, absolute, is_local, path_of
from tests.support.s3_server import new_bucket


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


@pytest.mark.parametrize("write", [Folder.create, Folder.write])
def test_a_file_is_written_only_once_its_name_is_on_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Folder, str, bytes], None]
) -> None:
    fsync, of_name = os.fsync, list[bool]()

    def noted(handle: int) -> None:
        fsync(handle)
        of_name.append(stat.S_ISDIR(os.fstat(handle).st_mode) and (tmp_path / "north" / "a.jpg").exists())

    monkeypatch.setattr(os, "fsync", noted)
    write(Folder(str(tmp_path)), "north/a.jpg", b"1")
    assert of_name == [False, True]


def test_a_mark_changes_with_the_files_and_not_by_itself(folder: Folder) -> None:
    assert folder.mark("v") == ""
    folder.write("v/a", b"old")
    marks = [folder.mark("v")]
    folder.read("v/a")
    assert folder.mark("v") == marks[0]
    for name, data in (("v/a", b"longer"), ("v/b", b"1"), ("v/b", b"2")):
        folder.write(name, data)
        marks.append(folder.mark("v"))
    assert len(set(marks)) == 4
    folder.remove("v/b")
    assert folder.mark("v") == marks[1]


def test_a_folder_is_empty_until_something_is_in_it(folder: Folder) -> None:
    assert folder.is_empty()
    folder.write("deer/a.txt", b"one")
    assert not folder.is_empty()
    assert not Folder(f"{folder.url}/deer").is_empty()
    assert Folder(f"{folder.url}/deer/a.txt").is_empty()
    assert Folder(f"{folder.url}/de").is_empty()


def test_whether_a_folder_on_s3_is_empty_is_one_small_question(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = Folder(new_bucket(s3_endpoint, "below")), list[tuple[str, object]]()
    assert folder.is_empty()
    bucket, _, inside = folder.root.partition("/")
    marked = f"{inside}/"  # a console creates it for a folder
    boto3.client("s3", endpoint_url=s3_endpoint).put_object(Bucket=bucket, Key=marked, Body=b"")
    assert folder.is_empty()
    for name in "abc":
        folder.write(name, b"1")
    call = folder.fs.call_s3

    def counted(method: str, **words: object) -> object:
        asked.append((method, words["MaxKeys"]))
        return call(method, **words)

    monkeypatch.setattr(folder.fs, "call_s3", counted)
    assert not folder.is_empty()
    assert asked == [("list_objects_v2", 2)]
    assert Folder("s3://no-such-bucket-at-all/archive").is_empty()


def test_below_a_file_there_is_nothing(folder: Folder) -> None:
    folder.write("notes.txt", b"mine")
    assert folder.names("notes.txt") == []
    assert not folder.exists("notes.txt/aliases.json")
    with pytest.raises(FileNotFoundError, match=r"notes\.txt/aliases\.json"):
        folder.read("notes.txt/aliases.json")


@pytest.mark.parametrize("error", [PermissionError, BlockingIOError])
def test_a_file_that_cannot_be_read_is_an_error_of_the_storage(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error("not for you")

    monkeypatch.setattr(folder.fs, "cat_file", refuse)
    with pytest.raises(StorageUnreachable, match=r"cannot read .*/a\.txt: not for you") as raised:
        folder.read("a.txt")
    assert isinstance(raised.value.__cause__, error)


def test_a_folder_travels_between_processes(folder: Folder) -> None:
    folder.write("a", b"1")
    again = pickle.loads(pickle.dumps(folder))
    assert again == folder
    assert again.read("a") == b"1"


@pytest.mark.parametrize("name", ["a::b", "~nobody-of-this-name", "a?b #", "100%41"])
def test_a_local_folder_has_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute(name) == str(tmp_path / name)
    for url in (absolute(name), f"file://{absolute(name)}"):
        folder = Folder(url)
        folder.write("x/y.txt", b"1")
        assert (tmp_path / name / "x" / "y.txt").read_bytes() == folder.read("x/y.txt") == b"1"
        assert folder.names() == ["x"]
        folder.remove("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_uri_of_a_folder_is_its_path_again(tmp_path: Path) -> None:
    for folder in (tmp_path / "jörg #1", tmp_path / "100%41?", tmp_path / "a b"):
        assert path_of(folder.as_uri()) == path_of(f"{folder.as_uri()}/") == str(folder)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.write("aliases.json", b"old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StorageUnreachable, match=r"cannot write .*/aliases\.json: disk full"):
        folder.write("aliases.json", b"new")
    assert folder.read("aliases.json") == b"old"
    assert folder.names() == ["aliases.json"]


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, StorageFull, "No space left on device; free some space"),
        (errno.EACCES, StorageUnreachable, "Permission denied; check owner and mode"),
        (errno.EROFS, StorageUnreachable, "Read-only file system; use a place that can be written"),
    ],
)
@pytest.mark.parametrize("act", ["create", "update"])
def test_a_disk_that_cannot_be_written_is_an_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, number: int, error: type[ResightError], words: str
) -> None:
    folder = Folder(str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    data: Any = b"1" if act != "update" else lambda _: b"1"
    with pytest.raises(error, match=rf"(?i)cannot write {tmp_path}/a/b: .*{words}") as raised:
        getattr(folder, act)("a/b", data)
    assert isinstance(raised.value.__cause__, OSError)


ACTS: dict[str, Callable[[Folder], object]] = {
    "write": lambda folder: folder.write("a", b"1"),
    "create": lambda folder: folder.create("a", b"1"),
    "update": lambda folder: folder.update("a", lambda _: b"1"),
    "read": lambda folder: folder.read("a"),
    "read_inside": lambda folder: folder.read_inside("x", "a", 9),
    "names": lambda folder: folder.names(),
}


@pytest.mark.parametrize("act", ["create", "read_inside", "names"])
def test_a_bucket_that_does_not_exist_is_an_error_with_the_way_out(s3_endpoint: str, act: str) -> None:
    """A missing file in a bucket is another matter."""
    words = r"cannot \w+ s3://no-such-bucket-here/x.*does not exist; create the bucket"
    with pytest.raises(StorageUnreachable, match=words):
        ACTS[act](Folder("s3://no-such-bucket-here/x"))
    with pytest.raises(StorageUnreachable, match=r"cannot open table .*; create the bucket"):
        Tables("s3://no-such-bucket-here/x").existing("media")
    empty = Folder(new_bucket(s3_endpoint, "below"))
    assert empty.names() == []
    with pytest.raises(FileNotFoundError):
        empty.read("a")


@pytest.mark.parametrize("act", ["write", "read", "exists", "is_empty", "remove"])
def test_a_server_that_does_not_answer_is_an_error_with_the_way_out(monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    folder = Folder("s3://bucket/x")

    async def refuse(*_: object, **__: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9/bucket")

    monkeypatch.setattr(folder.fs, "_call_s3", refuse)
    monkeypatch.setattr(folder.fs, "call_s3", lambda *_, **__: asyncio.run(refuse()))
    look = {"exists": lambda: folder.exists("a"), "is_empty": folder.is_empty}
    look |= {"remove": lambda: folder.remove("a")}
    with pytest.raises(StorageUnreachable, match=r"cannot \w+ s3://bucket/x.*AWS_ENDPOINT_URL"):
        look[act]() if act in look else ACTS[act](folder)


def test_an_unknown_protocol_says_how_to_get_s3() -> None:
    with pytest.raises(StorageUnreachable, match=r"resight\[s3\]"):
        Folder("nosuch://bucket/models")


@pytest.mark.parametrize(
    ("url", "local"), [("models", True), ("/models", True), ("file:///models", True), ("s3://b/models", False)]
)
def test_local_paths_become_absolute_and_urls_stay(url: str, local: bool) -> None:
    assert is_local(url) is local
    assert absolute(url) == (str(Path(url.removeprefix("file://")).resolve()) if local else url)
    assert absolute("s3://b/models/") == "s3://b/models"
    assert absolute("S3://Bucket/A/") == "s3://Bucket/A"


def test_a_file_that_memory_cannot_hold_is_no_fault_of_the_storage(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(folder.fs, "cat_file", large)
    with pytest.raises(MemoryError):
        folder.read("a.txt")
