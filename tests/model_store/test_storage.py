"""A folder behaves the same on a disk and on an fsspec URL."""

import asyncio
import errno
import os
import pickle
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from model_store import storage
from model_store.errors import Conflict, ResightError, StorageFull, StorageUnreachable, StorageUnsafe
from model_store.storage import Folder, absolute, is_local, path_of, require_create
from tests.model_store.racing_creator import WRITERS, count, win
from tests.s3_proxy import s3_proxy
from tests.support.processes import PROCESSES, pool


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
    folder, asked = Folder(new_bucket(s3_endpoint)), list[tuple[str, object]]()
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
    empty = Folder(new_bucket(s3_endpoint))
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


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an empty URL on a disk or on an S3 server."""
    if request.param == "local":
        return str(tmp_path / "place")
    return new_bucket(request.getfixturevalue("s3_endpoint"))


@pytest.fixture
def careless(s3_endpoint: str) -> Iterator[str]:
    """Return a URL on an S3 server without support for If-None-Match."""
    with s3_proxy(s3_endpoint, careless=True) as url:
        yield new_bucket(url)


def new_bucket(endpoint: str) -> str:
    name = f"b{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    return f"s3://{name}/below"


def test_what_is_there_is_never_created_again(folder: Folder) -> None:
    folder.create("views/1.json", b"first")
    with pytest.raises(FileExistsError):
        folder.create("views/1.json", b"second")
    folder.write("views/2.json", b"written")
    with pytest.raises(FileExistsError):
        folder.create("views/2.json", b"created")
    assert (folder.read("views/1.json"), folder.read("views/2.json")) == (b"first", b"written")
    assert folder.names("views") == ["1.json", "2.json"]


def test_a_large_file_is_created_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of an upload in parts, Ceph's gateway ignores the condition."""
    folder, calls = Folder("s3://bucket/large"), list[tuple[str, object]]()

    async def call(method: str, **words: object) -> dict[str, object]:
        calls.append((method, words.get("IfNoneMatch")))
        return {}

    monkeypatch.setattr(folder.fs, "_call_s3", call)
    folder.create("ids.txt", bytes(101 << 20))
    assert calls == [("put_object", "*")]


def test_of_many_that_create_at_once_one_succeeds_and_its_bytes_stay(place: str) -> None:
    files = [f"race/{i}" for i in range(4)]
    with PROCESSES.Manager() as shared, pool(WRITERS) as executor:
        barrier = shared.Barrier(WRITERS)
        writers = [executor.submit(win, place, files, str(i), barrier) for i in range(WRITERS)]
        won = [(file, i) for i, writer in enumerate(writers) for file in writer.result(120)]
    assert sorted(file for file, _ in won) == files
    assert {file: Folder(place).read(file) for file in files} == {file: str(i).encode() for file, i in won}
    assert Folder(place).names("race") == [str(i) for i in range(4)]


def test_an_update_sees_the_bytes_or_that_there_is_no_file(folder: Folder) -> None:
    folder.update("state", lambda old: b"first" if old is None else b"never")
    folder.update("state", lambda old: b"second" if old == b"first" else b"never")
    folder.update("state", lambda old: None)
    assert folder.read("state") == b"second"


def test_an_update_to_no_bytes_removes_the_file(place: str) -> None:
    folder = Folder(place)
    for _ in range(2):
        folder.update("state", lambda _: b"")
        assert not folder.exists("state")
        folder.update("state", lambda _: b"first")

    def change(old: bytes | None) -> bytes:
        if old == b"first":
            folder.write("state", b"by hand")
        return b"" if old == b"first" else b"kept"

    folder.update("state", change)
    assert folder.read("state") == b"kept", "it was changed since it was read"


def test_a_change_during_an_update_is_seen_by_it(place: str) -> None:
    """Changes by a writer that ignores the lock, such as an editor, are not lost either."""
    folder, seen = Folder(place), list[bytes | None]()

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        if len(seen) < 3:
            folder.write("state", b"by hand %d" % len(seen))
        return (old or b"") + b", ours"

    folder.update("state", change)
    assert seen == [None, b"by hand 1", b"by hand 2"]
    assert folder.read("state") == b"by hand 2, ours"


def test_a_file_that_is_changed_all_the_time_is_a_conflict(place: str) -> None:
    folder = Folder(place)

    def change(old: bytes | None) -> bytes:
        folder.write("state", (old or b"") + b"x")
        return b"ours"

    with pytest.raises(Conflict, match="state is being changed all the time"):
        folder.update("state", change)


def test_updates_of_many_processes_are_all_kept(place: str) -> None:
    times = 5
    with PROCESSES.Manager() as shared, pool(WRITERS) as executor:
        barrier = shared.Barrier(WRITERS)
        writers = [executor.submit(count, place, "sum", times, barrier) for _ in range(WRITERS)]
        for writer in writers:
            writer.result(120)
    assert int(Folder(place).read("sum")) == WRITERS * times


@pytest.mark.parametrize(("number", "error"), [(errno.EOPNOTSUPP, StorageUnsafe), (errno.EACCES, StorageUnreachable)])
def test_a_disk_that_cannot_link_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[ResightError]
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.link", no_link)
    with pytest.raises(error):
        Folder(str(tmp_path)).create("1.json", b"one")
    assert list(tmp_path.iterdir()) == []


class Answer(Exception):
    """Return botocore's error for a response of S3."""

    def __init__(self, status: int) -> None:
        self.response = {"Error": {"Code": "X"}, "ResponseMetadata": {"HTTPStatusCode": status}}


def answers(monkeypatch: pytest.MonkeyPatch, *statuses: int) -> list[int]:
    """Make the in-memory file system fail with these statuses in order, like s3fs; return the remaining ones."""
    folder, left = Folder("memory://answers"), list(statuses)
    real = folder.fs.pipe_file

    def pipe_file(*arguments: object, **options: object) -> None:
        if left:
            raise OSError(errno.EINVAL, "At least one precondition failed") from Answer(left.pop(0))
        real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(folder.fs, "pipe_file", pipe_file)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    return left


def test_servers_that_do_not_name_the_condition_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, 412)
    with pytest.raises(FileExistsError):
        Folder("memory://answers").create(uuid.uuid4().hex, b"")


def test_a_server_that_is_busy_with_the_same_file_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    name = uuid.uuid4().hex
    answers(monkeypatch, 409, 409)
    Folder("memory://answers").create(name, b"at last")
    assert Folder("memory://answers").read(name) == b"at last"
    answers(monkeypatch, 409, 412)
    with pytest.raises(FileExistsError):
        Folder("memory://answers").create(uuid.uuid4().hex, b"")
    left = answers(monkeypatch, *[409] * 100)
    with pytest.raises(StorageUnreachable, match="cannot write memory://answers/"):
        Folder("memory://answers").create(uuid.uuid4().hex, b"")
    assert len(left) == 100 - storage.CREATE_ATTEMPTS


def test_a_place_with_conditional_writes_passes_the_probe_and_nothing_is_left(place: str) -> None:
    Folder(place).create("file", b"")
    Folder(place).require_create()
    assert Folder(place).names() == ["file"]


def test_a_store_that_ignores_conditions_is_refused_and_nothing_is_left(careless: str) -> None:
    with pytest.raises(StorageUnsafe, match="ignores conditional writes"):
        Folder(careless).require_create()
    with pytest.raises(StorageUnsafe, match="ignores conditional writes"):
        Folder(careless).update("aliases.json", lambda _: b"{}")
    assert Folder(careless).names() == []


def test_each_remote_place_is_probed_once_and_again_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []

    def probe(folder: Folder) -> None:
        probed.append(folder.url)
        if len(probed) == 1:
            raise StorageUnreachable("away")

    monkeypatch.setattr(Folder, "require_create", probe)
    url = f"memory://{uuid.uuid4()}"
    with pytest.raises(StorageUnreachable):
        require_create(url)
    for _ in range(3):
        require_create(url)
        require_create("/on/a/disk")
    assert probed == [url, url]


def test_a_file_that_memory_cannot_hold_is_no_fault_of_the_storage(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(folder.fs, "cat_file", large)
    with pytest.raises(MemoryError):
        folder.read("a.txt")
