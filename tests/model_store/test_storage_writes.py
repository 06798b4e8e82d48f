"""Files are created once, and no concurrent change of a file is lost, on a disk and on an fsspec URL."""

import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store import storage
from model_store.errors import Conflict, ResightError, StorageUnreachable, StorageUnsafe
from model_store.storage import Folder, require_create
from tests.model_store.racing_creator import WRITERS, count, win
from tests.s3_proxy import s3_proxy
from tests.support.processes import PROCESSES, pool
from tests.support.s3_server import new_bucket


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an empty URL on a disk or on an S3 server."""
    if request.param == "local":
        return str(tmp_path / "place")
    return new_bucket(request.getfixturevalue("s3_endpoint"), "below")


@pytest.fixture
def careless(s3_endpoint: str) -> Iterator[str]:
    """Return a URL on an S3 server without support for If-None-Match."""
    with s3_proxy(s3_endpoint, careless=True) as url:
        yield new_bucket(url, "below")


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


def test_a_probe_passes_if_the_answer_to_its_file_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The S3 client sends it again, and the store answers that the file exists."""
    create = storage._create_remote

    def lost(fs: Any, path: str, data: bytes) -> None:
        create(fs, path, data)
        create(fs, path, data)

    monkeypatch.setattr(storage, "_create_remote", lost)
    place = f"memory://{uuid.uuid4()}"
    Folder(place).require_create()
    assert Folder(place).names() == []


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
