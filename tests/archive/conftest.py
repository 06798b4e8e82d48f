"""Fixtures: tables, a sample archive with many kinds of odd files, and results that may be pruned."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

import archive.retention
from archive.catalogue.ingest import IngestReport, ingest
from archive.delta.tables import Tables
from examples.sample_archive import Summary, build
from tests.archive.prunable import KEYS
from tests.fixtures_local import put_results, put_rows, result_rows


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """Return a read-only archive; tests that change files use `sample`."""
    out = tmp_path_factory.mktemp("sample") / "archive"
    return out, build(out, images=24)


@pytest.fixture
def sample(sample_folder: tuple[Path, Summary], tmp_path: Path) -> tuple[Path, Summary]:
    """Return a copy of the sample archive with the original file times, as from `cp -p`."""
    folder, summary = sample_folder
    return Path(shutil.copytree(folder, tmp_path / "archive")), summary


@pytest.fixture
def ingested(sample: tuple[Path, Summary], tables: Tables) -> IngestReport:
    return ingest(tables, str(sample[0]))


@pytest.fixture
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make prune treat no files as recently written."""
    monkeypatch.setattr(archive.retention, "WRITTEN", timedelta(seconds=-1))


@pytest.fixture(scope="session")
def four_untouched(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(str(tmp_path_factory.mktemp("four") / "tables"))
    for key in KEYS:
        put_results(tables, result_rows([f"{key}1", f"{key}2"], key=key))
        put_results(tables, result_rows([f"{key}3"], key=key))
    put_rows(tables, "snips", {"inference_key": "a", "media_sha256": "a1", "names": ["x"]})
    for key in ("a", "b"):
        rows = [{"inference_key": key, "media_sha256": "a1", "rank": rank} for rank in (0, 1)]
        put_rows(tables, "classifications", *rows)
    return tables


@pytest.fixture
def four(four_untouched: Tables, tables: Tables, old_files: None) -> Tables:
    """Return tables with four keys of three rows in two files, snips of one key and classifications of two."""
    shutil.copytree(four_untouched.url, tables.url)
    return tables
