"""Listings of archives on a disk and on S3; others are rejected."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import NoCredentialsError

from archive.catalogue.listing import ArchiveFile, list_files
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder
from tests.fixtures_local import write_files


def listed(url: str | Path) -> tuple[list[ArchiveFile], int]:
    """Return the files by path, and the number of others."""
    files, others = [], 0
    for found in list_files(Folder(str(url))):
        files += [ArchiveFile(**row) for row in found.files.to_pylist()]
        others += found.others
    return sorted(files, key=lambda file: file.path), others


def paths(url: str | Path) -> list[str]:
    return [file.path for file in listed(url)[0]]


@pytest.mark.parametrize(
    ("names", "images", "others"),
    [
        ([], [], 0),
        (["a.jpg"], ["a.jpg"], 0),
        (["b/c/d.png", "a.jpg"], ["a.jpg", "b/c/d.png"], 0),
        (["A.JPG", "B.JpEg", "C.TIF"], ["A.JPG", "B.JpEg", "C.TIF"], 0),
        (["a.jpe", "a.webp", "a.tiff", "a.bmp"], ["a.bmp", "a.jpe", "a.tiff", "a.webp"], 0),
        (["notes.txt", "a.jpg.part", "jpg", "a.gif", "v.mp4"], [], 5),
        ([".hidden.jpg", ".trash/a.jpg", "b/.c/d.jpg", "b/.x.jpg", "b/e.jpg"], ["b/e.jpg"], 2),
        (["with space/ü-'q'.jpg"], ["with space/ü-'q'.jpg"], 0),
    ],
)
def test_images_are_known_by_extension_and_the_rest_is_counted(
    tmp_path: Path, names: list[str], images: list[str], others: int
) -> None:
    write_files(tmp_path, dict.fromkeys(names, b"x"))
    assert (paths(tmp_path), listed(tmp_path)[1]) == (images, others)


def test_the_content_tag_changes_with_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"

    def tag(data: bytes, time_s: int) -> str:
        file.write_bytes(data)
        os.utime(file, (time_s, time_s))
        return listed(tmp_path)[0][0].content_tag

    first = tag(b"x", 1000)
    assert tag(b"y", 1000) == first
    assert tag(b"xx", 1000) != first
    assert tag(b"x", 2000) != first


def test_a_root_that_is_not_there_is_unreachable_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(StorageUnreachable, match="does not exist; is it mounted"):
        listed(tmp_path / "away")


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Make paths unreadable, also for a user who may open everything."""
    paths: set[Path] = set()
    scan = os.scandir

    def refusing(path: str) -> object:
        if isinstance(path, str) and Path(path) in paths:
            raise PermissionError(errno.EACCES, "not yours", path)
        return scan(path)

    monkeypatch.setattr("os.scandir", refusing)
    return paths


def gaps(root: Path) -> dict[str, str | None]:
    return {gap.path: gap.error for found in list_files(Folder(str(root))) for gap in found.gaps}


def test_a_folder_that_cannot_be_listed_is_a_gap_and_the_others_are_listed(
    tmp_path: Path, forbidden: set[Path]
) -> None:
    names = ["deer-north/1.jpg", "deer-north/deep/2.jpg", "deer-south/1.jpg"]
    write_files(tmp_path, dict.fromkeys(names, b"1"))
    forbidden.add(tmp_path / "deer-north/deep")
    assert paths(tmp_path) == ["deer-north/1.jpg", "deer-south/1.jpg"]
    (gap,) = gaps(tmp_path).items()
    assert gap[0] == "deer-north/deep"
    assert "not yours" in str(gap[1])


def test_folders_whose_files_never_count_are_not_entered(tmp_path: Path, forbidden: set[Path]) -> None:
    """Disks have some folders that belong to the administrator."""
    names = [".Trash-0/a.jpg", "lost+found/x", "cards/lost+found/x", "cards/.snapshots/b.jpg"]
    write_files(tmp_path, dict.fromkeys([*names, "cards/1.jpg"], b"1"))
    forbidden.update((tmp_path / name).parent for name in names)
    (tmp_path / ".again").symlink_to(tmp_path / "cards")
    assert paths(tmp_path) == ["cards/1.jpg"]
    assert gaps(tmp_path) == {}


def test_a_link_that_leads_nowhere_is_no_file_and_no_folder(tmp_path: Path) -> None:
    root = write_files(tmp_path / "archive", {"1.jpg": b"1"})
    (root / "itself").symlink_to("itself")
    (root / "itself.jpg").symlink_to("itself.jpg")
    (root / "below-a-file").symlink_to(root / "1.jpg" / "folder")
    (root / "too-long").symlink_to("n" * 300)
    assert paths(root) == ["1.jpg"]
    assert gaps(root) == {}


def test_a_link_whose_end_may_not_be_seen_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_files(tmp_path / "archive", {"1.jpg": b"1"})
    look = os.stat
    (root / "private").symlink_to(tmp_path / "private")

    class Entry:
        """Fail like a link below a folder of another user."""

        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path, self._entry = entry.name, entry.path, entry
            self.is_symlink, self.is_dir = entry.is_symlink, entry.is_dir

        def stat(self) -> os.stat_result:
            if self.name == "private":
                raise PermissionError(errno.EACCES, "not yours", self.path)
            return look(self.path)

    scan = os.scandir

    @contextmanager
    def entries(path: str) -> Iterator[Iterator[Entry]]:
        with scan(path) as found:
            yield (Entry(entry) for entry in found)

    monkeypatch.setattr("os.scandir", entries)
    assert paths(root) == ["1.jpg"]
    assert [(path, "not yours" in str(why)) for path, why in gaps(root).items()] == [("private", True)]


def test_folders_and_links_with_nothing_behind_them_are_gaps_without_an_error(tmp_path: Path) -> None:
    """Mount points without their disk look like this."""
    root = write_files(tmp_path / "archive", {"north/1.jpg": b"1"})
    (root / "north/card").mkdir()
    (root / "south").symlink_to(tmp_path / "unmounted")
    assert paths(root) == ["north/1.jpg"]
    assert gaps(root) == {"north/card": None, "south": None}
    (root / "empty").mkdir()
    assert gaps(root / "empty") == {}


def test_a_link_to_a_folder_that_holds_the_archive_renames_nothing(tmp_path: Path) -> None:
    write_files(tmp_path / "data", {"archive/north/1.jpg": b"1", "other/2.jpg": b"2"})
    root = tmp_path / "data/archive"
    (root / "aa").symlink_to(tmp_path / "data")
    (root / "ab").symlink_to(tmp_path / "data/other")
    (tmp_path / "data/other/back").symlink_to(root / "north")
    assert paths(root) == ["aa/other/2.jpg", "north/1.jpg"]


def test_a_linked_camera_folder_belongs_to_the_archive_once(tmp_path: Path) -> None:
    elsewhere = write_files(tmp_path / "disk2", {"1.jpg": b"1", "2.jpg": b"2"})
    root = write_files(tmp_path / "archive", {"deer-north/1.jpg": b"1"})
    (root / "deer-south").symlink_to(elsewhere)
    (root / "deer-south-again").symlink_to(elsewhere)
    (root / "deer-north" / "loop").symlink_to(root)
    (root / "deer-north" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert paths(root) == ["deer-north/1.jpg", "deer-south/1.jpg", "deer-south/2.jpg"]


@pytest.mark.parametrize("part", [2, 100])
def test_a_large_folder_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr("archive.catalogue.listing.FOUND_FILES", part)
    names = [f"{camera}/{i}.jpg" for camera in "ab" for i in range(5)] + ["notes.txt"]
    write_files(tmp_path, dict.fromkeys(names, b"x"))
    assert (paths(tmp_path), listed(tmp_path)[1]) == (sorted(names[:-1]), 1)
    assert max(len(found.files) for found in list_files(Folder(str(tmp_path)))) <= part


@pytest.mark.parametrize("below", ["", "field/2025"])
def test_on_s3_a_file_is_every_key_below_the_prefix(s3_endpoint: str, below: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    bucket = f"listing-{len(below)}"
    client.create_bucket(Bucket=bucket)
    prefix = f"{below}/" if below else ""
    images = ["1.jpg", "a/1.JPG", "a/b/ü +&%2F'q.png", "a.jpg/2.jpg", "a//3.jpg"]
    others = ["notes.txt", "a/", "empty/", ".cache/1.jpg", "a/.b.jpg", "a/1.jpg/"]
    for key in [*images, *others]:
        client.put_object(Bucket=bucket, Key=prefix + key, Body=key.encode())
    if prefix:
        for beside in (prefix, below, f"{below}-more/1.jpg", "1.jpg"):
            client.put_object(Bucket=bucket, Key=beside, Body=b"")
    root = f"s3://{bucket}/{below}"
    files, rest = listed(root)
    assert [file.path for file in files] == sorted(images)
    assert rest == len(others) + bool(prefix)
    for file in files:
        data = Folder(root).read(file.path)
        assert (data.decode(), len(data)) == (file.path, file.size_bytes)
        head = client.head_object(Bucket=bucket, Key=prefix + file.path)
        assert file.content_tag == "etag:" + head["ETag"].strip('"')


def test_an_s3_prefix_without_keys_is_unreachable(s3_endpoint: str) -> None:
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="nothing")
    for place, why in (
        ("nothing", "no key of the bucket nothing begins so"),
        ("no-bucket", "there is no bucket no-bucket"),
    ):
        with pytest.raises(StorageUnreachable, match=f"s3://{place}/here does not exist: {why}, is the name right"):
            listed(f"s3://{place}/here")


def test_s3_without_keys_is_an_error_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Folder("s3://bucket/x")

    async def refuse(*_: object, **__: object) -> None:
        raise NoCredentialsError

    monkeypatch.setattr(root.fs, "_call_s3", refuse)
    with pytest.raises(StorageUnreachable, match=r"cannot list s3://bucket/x: .*; set AWS_ACCESS_KEY_ID"):
        list(list_files(root))


def test_other_file_systems_are_rejected() -> None:
    with pytest.raises(BadRequest, match="invalid archive 'memory://archive': use a folder of a local disk, or s3://"):
        listed("memory://archive")
