"""Catalogued files that a listing lacks: a few are gone, or a whole disk is not mounted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import boto3
import pytest

import archive.catalogue.listing
from archive.catalogue.absences import GONE_FILES, GONE_FRAC
from archive.catalogue.clips import Sampling
from archive.catalogue.ingest import IngestReport, ingest
from archive.catalogue.listing import Gap
from archive.delta.tables import Tables
from model_store.errors import StorageUnreachable
from tests.fixtures_local import jpeg, rows_of, write_files
from tests.support.clips import clip, noise

SERIAL = 0xA431


def camera(name: str, files: int) -> dict[str, bytes]:
    return {f"{name}/{i}.jpg": jpeg(shade=i % 256) for i in range(files)}


def marked(tables: Tables) -> set[str]:
    return {row["path"] for row in rows_of(tables, "media") if row["missing_since"]}


def nothing_is_read(root: Path, tables: Tables) -> IngestReport:
    report = ingest(tables, str(root))
    assert report.bytes_read == 0
    return report


@pytest.fixture
def two_disks(tmp_path: Path, tables: Tables) -> Path:
    """Return an archive in which `south` is the mount point of a disk."""
    root = write_files(tmp_path / "archive", camera("north", 12) | camera("south", 30))
    ingest(tables, str(root))
    return root


@pytest.mark.parametrize("how", ["emptied", "removed"])
def test_files_of_a_disk_that_is_away_keep_their_rows_and_are_not_hashed_again(
    two_disks: Path, tmp_path: Path, tables: Tables, how: str
) -> None:
    shutil.move(two_disks / "south", tmp_path / "disk")
    if how == "emptied":
        (two_disks / "south").mkdir()
    write_files(two_disks, {"north/new.jpg": jpeg(shade=99)})
    (two_disks / "north/1.jpg").unlink()
    report = ingest(tables, str(two_disks))
    (place,) = report.withheld
    assert place.startswith("south/")
    assert report.withheld[place] == 30
    assert (report.new, report.missing) == (1, 1)
    assert marked(tables) == {"north/1.jpg"}
    shutil.rmtree(two_disks / "south", ignore_errors=True)
    shutil.move(tmp_path / "disk", two_disks / "south")
    assert nothing_is_read(two_disks, tables).withheld == {}


def test_a_linked_folder_whose_disk_is_away_keeps_its_rows(tmp_path: Path, tables: Tables) -> None:
    disk = write_files(tmp_path / "disk", camera("a", 12))
    root = write_files(tmp_path / "archive", camera("north", 120))
    (root / "north/card").symlink_to(disk)
    ingest(tables, str(root))
    shutil.move(disk, tmp_path / "unplugged")
    assert sum(ingest(tables, str(root)).withheld.values()) == 12
    assert marked(tables) == set()
    shutil.move(tmp_path / "unplugged", disk)
    assert nothing_is_read(root, tables).withheld == {}


def test_on_s3_a_prefix_that_lists_nothing_keeps_its_rows(tables: Tables, s3_endpoint: str) -> None:
    """Repeat the ingest while it is away: the report is the same, and nothing is committed."""
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="half-away")
    for path, data in (camera("north", 12) | camera("south", 15)).items():
        client.put_object(Bucket="half-away", Key=f"field/{path}", Body=data)
    ingest(tables, "s3://half-away/field")
    for path in camera("south", 15):
        client.delete_object(Bucket="half-away", Key=f"field/{path}")
    version = tables.snapshot("media").version()
    for _ in range(2):
        report = ingest(tables, "s3://half-away/field")
        assert (report.withheld, report.missing) == ({"south/": 15}, 0)
    assert tables.snapshot("media").version() == version
    assert ingest(tables, "s3://half-away/field", believe=True).missing == 15


def test_a_folder_that_was_renamed_is_not_a_disk_that_is_away(two_disks: Path, tables: Tables) -> None:
    """Unmount and mount the disk: the second time, all its files have rows."""
    for old, new in (("south", "west"), ("west", "south")):
        (two_disks / old).rename(two_disks / new)
        report = ingest(tables, str(two_disks))
        assert (report.missing, report.withheld) == (30, {})
        assert marked(tables) == set(camera(old, 30))


def test_a_killed_ingest_of_a_renamed_folder_is_continued(
    two_disks: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    (two_disks / "south").rename(two_disks / "west")
    monkeypatch.setattr("archive.catalogue.ingest.COMMIT_ROWS", 15)

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(tables, str(two_disks), progress=killed)
    assert len(marked(tables)) == 15
    report = ingest(tables, str(two_disks))
    assert (report.new, report.missing, report.withheld) == (15, 30, {})
    assert marked(tables) == set(camera("south", 30))
    (two_disks / "west").rename(two_disks / "south")
    with monkeypatch.context() as patch:
        patch.setattr("archive.catalogue.ingest.Changes.commit", lambda _: killed(0, 0))
        with pytest.raises(KeyboardInterrupt):
            ingest(tables, str(two_disks))
    assert marked(tables) == set(camera("south", 30)), "each content keeps a present row"
    report = ingest(tables, str(two_disks))
    assert (report.missing, report.withheld) == (30, {})
    assert marked(tables) == set(camera("west", 30))


def test_only_what_arrived_at_another_place_was_moved(two_disks: Path, tables: Tables) -> None:
    """Older copies, and copies that `verify` reads again, are not moved files of an unmounted disk."""
    (two_disks / "copy.jpg").write_bytes((two_disks / "south/20.jpg").read_bytes())
    shutil.rmtree(two_disks / "south")
    report = ingest(tables, str(two_disks), verify=True)
    assert (report.missing, report.withheld) == (1, {"south/": 29})
    assert marked(tables) == {"south/20.jpg"}


def test_up_to_a_share_of_the_files_is_removed_without_a_question(tmp_path: Path, tables: Tables) -> None:
    """All files of a small camera, and a tenth of a large one, half of which is moved; the next one is a question."""
    files = 10 * GONE_FILES
    root = write_files(tmp_path / "archive", camera("small", 3) | camera("large", files) | camera("other", files))
    ingest(tables, str(root))
    shutil.rmtree(root / "small")
    most = int(files * GONE_FRAC)
    for i in range(most):
        (root / f"large/{i}.jpg").unlink()
    for i in range(files // 2, files):
        (root / f"large/{i}.jpg").rename(root / f"other/moved{i}.jpg")
    report = ingest(tables, str(root))
    gone = 3 + most + files // 2
    assert (report.missing, report.withheld) == (gone, {})
    for i in range(most, 2 * most):
        (root / f"large/{i}.jpg").unlink()
    report = ingest(tables, str(root))
    assert (report.missing, report.withheld) == (gone, {"large/": most})


def test_a_mount_point_deep_in_a_large_folder_is_found_by_being_empty(tmp_path: Path, tables: Tables) -> None:
    """The empty folder had a small part of the files of its top-level folder."""
    root = write_files(tmp_path / "archive", camera("2025/cam", 130) | camera("2025/card", 12))
    ingest(tables, str(root))
    shutil.rmtree(root / "2025/card")
    (root / "2025/card").mkdir()
    (place,) = ingest(tables, str(root)).withheld
    assert place.startswith("2025/card/")
    assert marked(tables) == set()


def test_a_camera_that_is_spread_over_folders_is_asked_for_as_one(tmp_path: Path, tables: Tables) -> None:
    """Folders by month, each of which lacks a small share."""
    months = [f"2025-{month:02}" for month in range(1, 13)]
    files = {f"{m}/{i}.jpg": jpeg(shade=i) for m in months for i in range(10)}
    files |= {f"{month}/cam.jpg": jpeg(detail={SERIAL: "H42"}, shade=7) for month in months}
    root = write_files(tmp_path / "archive", files | {"other/B/0.jpg": jpeg(shade=99)})
    ingest(tables, str(root), template="other/{camera}/{rest}")
    for month in months:
        (root / month / "cam.jpg").unlink()
    report = ingest(tables, str(root))
    assert report.withheld == {"camera H42": 12}
    assert marked(tables) == set()


def test_many_small_folders_that_are_gone_together_are_a_question_too(tmp_path: Path, tables: Tables) -> None:
    files = {path: data for i in range(20) for path, data in camera(f"cam{i}", 2).items()}
    root = write_files(tmp_path / "archive", files)
    ingest(tables, str(root))
    for i in range(8):
        shutil.rmtree(root / f"cam{i}")
    assert ingest(tables, str(root)).withheld == {"the archive": 16}
    assert marked(tables) == set()


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Make folders unreadable, also for a user who may open everything."""
    folders: set[Path] = set()
    scan = os.scandir

    def refusing(path: str) -> object:
        if isinstance(path, str) and Path(path) in folders:
            raise PermissionError(13, "not yours", path)
        return scan(path)

    monkeypatch.setattr("os.scandir", refusing)
    return folders


def test_files_in_a_folder_that_cannot_be_read_keep_their_rows_and_the_others_are_ingested(
    tmp_path: Path, tables: Tables, forbidden: set[Path]
) -> None:
    """Neighbours of the folder share its prefix, and sort before and after its files."""
    beside = ["a", "a b/1", "a-/1", "a.b/1", "a0/1", "ab/1", "a/x/1"]
    root = write_files(tmp_path / "archive", {f"{name}.jpg": jpeg() for name in [*beside, "z/1"]})
    ingest(tables, str(root))
    for name in beside[:-1]:
        (root / f"{name}.jpg").unlink()
    write_files(root, {"new/1.jpg": jpeg(shade=3)})
    forbidden.add(root / "a")
    report = ingest(tables, str(root), believe=True)
    assert list(report.unlisted) == ["a"]
    assert "not yours" in report.unlisted["a"]
    assert (report.new, report.missing) == (1, 6)
    assert marked(tables) == {f"{name}.jpg" for name in beside[:-1]}
    forbidden.clear()
    report = nothing_is_read(root, tables)
    assert (report.unlisted, report.missing) == ({}, 6)


def test_the_frames_of_a_clip_follow_their_clip_and_count_for_no_file(
    tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_files(tmp_path / "archive", camera("north", 12))
    clip(tmp_path / "disk/a.mp4", noise(20))
    (root / "north/a.mp4").symlink_to(tmp_path / "disk/a.mp4")
    ingest(tables, str(root), sampling=Sampling(10.0))
    look = archive.catalogue.listing._look

    def refusing(entry: os.DirEntry[str], cut: int) -> object:
        return Gap(entry.path[cut:], "not yours") if entry.is_symlink() else look(entry, cut)

    with monkeypatch.context() as patch:
        patch.setattr(archive.catalogue.listing, "_look", refusing)
        report = ingest(tables, str(root))
    assert (report.unlisted, report.withheld, marked(tables)) == ({"north/a.mp4": "not yours"}, {}, set())
    (root / "north/a.mp4").unlink()
    report = ingest(tables, str(root))
    assert (report.missing, report.withheld) == (21, {})


def test_an_archive_of_which_no_folder_can_be_read_says_why(
    tmp_path: Path, tables: Tables, forbidden: set[Path]
) -> None:
    root = write_files(tmp_path / "archive", camera("a", 2))
    forbidden.add(root / "a")
    with pytest.raises(StorageUnreachable, match=r"no images .* cannot read a: .*not yours"):
        ingest(tables, str(root))


def test_folders_whose_names_hold_wildcards_and_quotes_are_places(tmp_path: Path, tables: Tables) -> None:
    root = write_files(tmp_path / "archive", camera("it's 100%_*", 12) | camera("it's 100x", 300))
    ingest(tables, str(root))
    shutil.rmtree(root / "it's 100%_*")
    assert ingest(tables, str(root)).withheld == {"it's 100%_*/": 12}
