"""Uploads without rows and rows without uploads, leftovers, full disks, and secrets."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from batch.doctor.finding import Finding
from tests.batch.doctor.conftest import Home
from tests.fixtures_local import jpeg, rows_of, write_files
from tests.support.disks import disk_with


def only(home: Home) -> Finding:
    (found,) = home.findings
    return found


def upload(home: Home, *names: str) -> list[Path]:
    """Write files as if their rows were lost with their process."""
    place = Path(home.settings.uploads_url)
    write_files(place, {name: jpeg(shade=i) for i, name in enumerate(names)})
    return [place / name for name in names]


def test_a_new_upload_may_wait_for_its_row_and_an_old_one_is_catalogued(home: Home) -> None:
    _, old = upload(home, "a/1.jpg", "b/2.jpg")
    assert home.findings == []
    os.utime(old, (0, 0))
    found = only(home)
    assert (found.check, found.problem) == ("uploads", "2 files without a row, such as b/2.jpg")
    assert found.repair
    found.repair()
    assert home.findings == []
    paths = {row["path"] for row in rows_of(home.tables, "media") if row["source_root"] == home.settings.uploads_url}
    assert {"a/1.jpg", "b/2.jpg"} < paths


def test_a_lost_upload_is_found_and_nothing_is_marked_as_missing(home: Home) -> None:
    (old,) = upload(home, "a/1.jpg")
    os.utime(old, (0, 0))
    (kept,) = home.files("uploads/north/*")
    kept.unlink()
    lost, unrecorded = home.findings
    assert lost.problem == f"1 files are missing, such as north/{kept.name}"
    assert (lost.repair, unrecorded.repair) == (None, None)
    shutil.rmtree(home.settings.uploads_url)
    assert only(home) == lost


def test_an_upload_that_is_marked_as_missing_is_no_longer_found(home: Home) -> None:
    upload(home, "a/1.jpg")
    home.files("uploads/north/*")[0].unlink()
    assert only(home).check == "uploads"
    ingest(home.tables, home.settings.uploads_url, believe=True)  # what a person requests with --yes
    assert home.findings == []


def test_old_temporary_files_are_found_and_removed(home: Home) -> None:
    old, new = (write_files(Path(home.settings.models_url), {f"blobs/.writing-{n}": b""}) for n in "ab")
    os.utime(old / "blobs/.writing-a", (0, 0))
    found = only(home)
    assert (found.check, found.subject) == ("leftovers", home.settings.models_url)
    assert found.repair
    found.repair()
    assert home.findings == []
    assert [path.name for path in (new / "blobs").glob(".writing-*")] == [".writing-b"]


def test_a_disk_below_the_limit_is_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_with(monkeypatch, 1023)
    assert {finding.check for finding in home.findings} == {"disks"}
    for free_mib in (1000, 0):
        home.settings.policy_path.write_text(f"[stop]\nfree_mib = {free_mib}\n")
        assert home.findings == []
    disk_with(monkeypatch, 0)
    assert {finding.check for finding in home.findings} == {"disks"}


def test_an_invalid_policy_is_found(home: Home) -> None:
    home.settings.policy_path.write_text("[stop]\nfree_mb = 1\n")
    assert "did you mean free_mib" in only(home).problem


def test_a_home_of_another_user_is_found_and_neither_empty_nor_wrong(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(LocalFileSystem, "ls", refuse)
    monkeypatch.setattr("batch.schedule.policy.Path.read_text", refuse)
    monkeypatch.setattr(Tables, "existing", lambda *_: None)  # as delta-rs reports it
    found = {finding.check: finding for finding in home.findings}
    assert found["settings"].action == "correct its owner and mode"
    assert "Permission denied; check owner and mode" in found["tables"].problem


def test_lost_tokens_and_secrets_that_others_can_read_are_found(home: Home) -> None:
    tokens = Path(home.settings.tokens_url)
    tokens.chmod(0o640)
    found = only(home)
    assert (found.subject, found.action) == (str(tokens), f"chmod 600 {tokens}")
    assert found.repair
    found.repair()
    assert home.findings == []
    tokens.write_text("{")
    assert "is damaged" in only(home).problem
    tokens.unlink()
    assert "is missing, but tokens were made" in only(home).problem
