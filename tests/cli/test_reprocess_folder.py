"""`resight reprocess FOLDER`: catalogue the archive of the folder, then run on the images in the folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import cli.follow
from archive.delta.tables import Tables
from tests.cli.conftest import Resight
from tests.fixtures_local import copy_of_models, jpeg, rows_of, write_files
from tests.support.jobs import FakeJobs

RUN = ("reprocess", "--model", "motion")


@pytest.fixture
def archive(home: Path, tmp_path: Path) -> Path:
    copy_of_models(home)
    files = {f"{camera}/{n}.jpg": jpeg(shade=n) for n, camera in enumerate(["north", "south"])}
    return write_files(tmp_path / "my archive", files)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    jobs = FakeJobs()
    monkeypatch.setattr(cli.follow, "jobs_of", lambda *_: jobs)
    monkeypatch.setattr(cli.follow, "running_elsewhere", lambda *_: set())
    return jobs


def scope_of(jobs: FakeJobs) -> dict[str, Any]:
    """Return the scope of the only run that was started."""
    [(module, _, words, followed)] = jobs.submitted
    assert (module, followed) == ("batch.reprocess", True)
    return json.loads(words[words.index("--spec") + 1])["scope"]


def files(home: Path) -> list[str]:
    return sorted(row["path"] for row in rows_of(Tables(str(home / "tables")), "media"))


def test_a_folder_is_catalogued_first(resight: Resight, home: Path, archive: Path, jobs: FakeJobs) -> None:
    done = resight(*RUN, archive)
    assert done.code == 0
    assert f"catalogued {archive}: images 2, new 2, changed 0" in done.err
    assert files(home) == ["north/0.jpg", "south/1.jpg"]
    assert scope_of(jobs) == {"folder": str(archive)}


def test_a_folder_of_a_retired_archive_is_an_archive_of_its_own(
    resight: Resight, home: Path, archive: Path, jobs: FakeJobs
) -> None:
    resight("ingest", archive).ok()
    resight("ingest", "--retire", archive).ok()
    done = resight(*RUN, archive / "north")
    assert done.code == 0, done.err
    assert f"catalogued {archive / 'north'}: images 1, new 1, changed 0" in done.err
    again = resight(*RUN, archive / "north")
    assert f"catalogued {archive / 'north'}: images 1, new 0, changed 0" in again.err


def test_of_a_part_of_an_archive_the_whole_is_catalogued(
    resight: Resight, home: Path, archive: Path, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    resight("ingest", archive).ok()
    write_files(archive, {"north/new.jpg": jpeg(shade=7)})
    monkeypatch.chdir(archive)
    done = resight(*RUN, "north", "--sample", "1")
    assert f"catalogued {archive}: images 3, new 1, changed 0" in done.err
    assert "north/new.jpg" in files(home)
    assert scope_of(jobs) == {"folder": str(archive / "north"), "sample": 1}


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_processed(
    resight: Resight, archive: Path, jobs: FakeJobs
) -> None:
    (archive / "north" / os.fsdecode(b"\xff.jpg")).write_bytes(jpeg(shade=9))
    done = resight(*RUN, archive)
    assert "unreadable: north/\\udcff.jpg: its name is not UTF-8" in done.err
    assert (done.code, scope_of(jobs)) == (1, {"folder": str(archive)})


def test_files_that_are_gone_stop_it(resight: Resight, archive: Path, jobs: FakeJobs, tmp_path: Path) -> None:
    write_files(archive, {f"west/{n}.jpg": jpeg(shade=n + 20) for n in range(12)})
    resight("ingest", archive).ok()
    (archive / "west").rename(tmp_path / "elsewhere")
    done = resight(*RUN, archive)
    assert "is a disk not mounted?" in done.err
    assert (done.code, jobs.submitted) == (1, [])


def test_a_dry_run_catalogues_nothing(resight: Resight, home: Path, archive: Path) -> None:
    assert "no image is catalogued" in resight(*RUN, archive, "--dry-run").refused(2)
    assert not (home / "tables" / "media").exists()


def test_a_folder_is_given_once(resight: Resight, archive: Path) -> None:
    words = resight(*RUN, archive, "--folder", archive).refused(2)
    assert "FOLDER and --folder: give one of them" in words


def test_a_folder_without_images_is_refused(resight: Resight, home: Path, archive: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no images" in resight(*RUN, empty).refused(7)
