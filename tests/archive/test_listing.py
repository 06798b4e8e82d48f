"""What a walk over an archive finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from archive.listing import list_files
from model_store.errors import StorageUnreachable
from model_store.storage import Folder
from tests.fixtures_local import write_files


@pytest.mark.parametrize(
    ("names", "images", "others"),
    [
        ([], [], 0),
        (["a.jpg"], ["a.jpg"], 0),
        (["b/c/d.png", "a.jpg"], ["a.jpg", "b/c/d.png"], 0),
        (["A.JPG", "B.JpEg", "C.TIF"], ["A.JPG", "B.JpEg", "C.TIF"], 0),
        (["a.jpe", "a.webp", "a.tiff", "a.bmp"], ["a.bmp", "a.jpe", "a.tiff", "a.webp"], 0),
        (["notes.txt", "a.jpg.part", "jpg", "a.gif", "v.mp4"], [], 5),
        ([".hidden.jpg", ".trash/a.jpg", "b/.c/d.jpg", "b/e.jpg"], ["b/e.jpg"], 3),
        (["with space/ü-'q'.jpg"], ["with space/ü-'q'.jpg"], 0),
    ],
)
def test_images_are_known_by_extension_and_the_rest_is_counted(
    tmp_path: Path, names: list[str], images: list[str], others: int
) -> None:
    write_files(tmp_path, dict.fromkeys(names, b"x"))
    listing = list_files(Folder(str(tmp_path)))
    assert [file.path for file in listing.files] == images
    assert listing.others == others


def test_the_content_tag_changes_with_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"

    def tag(data: bytes, time_s: int) -> str:
        file.write_bytes(data)
        os.utime(file, (time_s, time_s))
        return list_files(Folder(str(tmp_path))).files[0].content_tag

    first = tag(b"x", 1000)
    assert tag(b"y", 1000) == first
    assert tag(b"xx", 1000) != first
    assert tag(b"x", 2000) != first


def test_sizes_are_in_the_listing(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"12345"})
    assert list_files(Folder(str(tmp_path))).files[0].size_bytes == 5


def test_a_root_that_is_not_there_is_unreachable_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(StorageUnreachable, match="does not exist; is it mounted"):
        list_files(Folder(str(tmp_path / "away")))


@pytest.mark.parametrize("folder", ["", "deer-north"])
def test_a_folder_that_cannot_be_listed_is_unreachable_and_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    write_files(tmp_path, {"deer-north/1.jpg": b"1", "deer-south/1.jpg": b"1"})
    scan = os.scandir

    def refusing(path: str) -> object:
        if Path(path) == tmp_path / folder:
            raise PermissionError("not yours")
        return scan(path)

    monkeypatch.setattr("os.scandir", refusing)
    with pytest.raises(StorageUnreachable, match=r"cannot list .* not yours"):
        list_files(Folder(str(tmp_path)))


def test_a_linked_camera_folder_belongs_to_the_archive_once(tmp_path: Path) -> None:
    elsewhere = write_files(tmp_path / "disk2", {"1.jpg": b"1", "2.jpg": b"2"})
    root = write_files(tmp_path / "archive", {"deer-north/1.jpg": b"1"})
    (root / "deer-south").symlink_to(elsewhere)
    (root / "deer-south-again").symlink_to(elsewhere)
    (root / "deer-north" / "loop").symlink_to(root)
    (root / "deer-north" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = list_files(Folder(str(root)))
    assert [file.path for file in found.files] == [
        "deer-north/1.jpg",
        "deer-south/1.jpg",
        "deer-south/2.jpg",
    ]
