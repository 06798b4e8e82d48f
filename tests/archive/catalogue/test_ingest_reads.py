"""Files that an ingest reads, and their size in memory."""

from __future__ import annotations

import hashlib
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from batch.pipeline.read_image import ReadImage, image_bytes
from model_store.storage import Folder
from tests.fixtures_local import jpeg, put_results, put_rows, result_rows, rows_of, write_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "archive", {f"north/{i}.jpg": jpeg(shade=60 + 40 * i) for i in range(3)})


def row_of(tables: Tables, path: str) -> dict[str, Any]:
    (row,) = (row for row in rows_of(tables, "media") if row["path"] == path)
    return row


def flip(file: Path) -> bytes:
    """Write other bytes with the same size and time, as after disk damage or `cp -p`."""
    times = file.stat()
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    return bytes(data)


def test_what_a_run_found_changed_is_read_again_once(root: Path, tables: Tables) -> None:
    """Repair the row as its error proposes; no run could use the file before."""
    ingest(tables, str(root))
    data = flip(root / "north/1.jpg")
    row = row_of(tables, "north/1.jpg")
    outcome = image_bytes(row)
    assert isinstance(outcome, ReadImage)
    assert outcome.error_code == "changed"
    assert "run 'resight ingest' again" in str(outcome.error_detail)
    put_results(tables, result_rows([row["media_sha256"]], status="failed", error_code="changed"))
    report = ingest(tables, str(root))
    assert (report.changed, report.unchanged, report.bytes_read) == (1, 2, len(data))
    after = row_of(tables, "north/1.jpg")
    assert after["media_sha256"] == hashlib.sha256(data).hexdigest()
    assert image_bytes(after) == data
    report = ingest(tables, str(root))
    assert (report.unchanged, report.bytes_read) == (3, 0)


def test_verify_counts_what_has_changed_and_not_what_it_read(root: Path, tables: Tables) -> None:
    ingest(tables, str(root))
    flip(root / "north/1.jpg")
    assert ingest(tables, str(root)).bytes_read == 0
    report = ingest(tables, str(root), verify=True)
    assert (report.changed, report.unchanged) == (1, 2)
    assert report.bytes_read == sum(file.stat().st_size for file in (root / "north").iterdir())


@pytest.mark.parametrize("table", ["snips", "classifications"])
def test_every_kind_of_run_may_find_it(root: Path, tables: Tables, table: str) -> None:
    ingest(tables, str(root))
    flip(root / "north/2.jpg")
    failed = {
        "inference_key": "k",
        "media_sha256": row_of(tables, "north/2.jpg")["media_sha256"],
        "status": "failed",
        "error_code": "changed",
        "finished_at": datetime.now(UTC),
    }
    put_rows(tables, table, failed, failed | {"rank": 1})
    assert ingest(tables, str(root)).changed == 1


def test_other_failures_and_older_ones_make_nothing_due(root: Path, tables: Tables) -> None:
    before = datetime.now(UTC) - timedelta(days=1)
    ingest(tables, str(root))
    shas = [row["media_sha256"] for row in rows_of(tables, "media")]
    failed = {"status": "failed"}
    put_results(tables, result_rows(shas[:1], **failed, error_code="decode"))
    put_results(tables, result_rows(shas[1:2], **failed, error_code="changed", finished_at=before))
    put_results(tables, result_rows(["another archive's"], **failed, error_code="changed"))
    assert ingest(tables, str(root)).bytes_read == 0


def test_a_huge_file_is_unreadable_and_the_others_are_ingested(root: Path, tables: Tables) -> None:
    with (root / "ortho.tif").open("wb") as file:
        file.truncate(2 << 40)  # no disk is needed for it
    report = ingest(tables, str(root))
    assert (report.new, report.files) == (3, 4)
    assert list(report.unreadable) == ["ortho.tif"]
    assert "2097152 MiB, over --max-mib 512" in report.unreadable["ortho.tif"]


def test_a_file_that_does_not_fit_into_memory_is_unreadable(
    root: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files may grow after they are listed."""
    read = Folder.read

    def no_memory(folder: Folder, path: str) -> bytes:
        if path == "north/1.jpg":
            raise MemoryError
        return read(folder, path)

    monkeypatch.setattr(Folder, "read", no_memory)
    report = ingest(tables, str(root))
    assert (report.new, report.unreadable) == (2, {"north/1.jpg": "MemoryError"})


@pytest.mark.parametrize(("mib", "together"), [(1, 3), (3, 1)])
def test_files_that_are_read_at_the_same_time_fit_into_the_bound_together(
    tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch, mib: int, together: int
) -> None:
    """The limit is 3 MiB; a file of that size is read alone."""
    monkeypatch.setattr("archive.catalogue.ingest.MAX_MIB", 3)
    root = tmp_path / "large"
    for i in range(7):
        write_files(root, {f"{i}.jpg": b""})
        os.truncate(root / f"{i}.jpg", mib << 20)
    lock, inside, most = threading.Lock(), 0, 0
    read = Folder.read

    def counting(folder: Folder, path: str) -> bytes:
        nonlocal inside, most
        if folder.url != str(root):
            return read(folder, path)
        with lock:
            inside += 1
            most = max(most, inside)
        data = read(folder, path)
        with lock:
            inside -= 1
        return data

    monkeypatch.setattr(Folder, "read", counting)
    assert ingest(tables, str(root), max_mib=3).new == 7
    assert 1 <= most <= together
