"""Tables and a sample archive of every odd file there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from archive.ingest import IngestReport, ingest
from archive.tables import Tables
from examples.sample_archive import Summary, build


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """Only to read: tests that change files take `sample`."""
    out = tmp_path_factory.mktemp("sample") / "archive"
    return out, build(out, images=24)


@pytest.fixture
def sample(sample_folder: tuple[Path, Summary], tmp_path: Path) -> tuple[Path, Summary]:
    """A copy of the sample archive; times of files are kept, as `cp -p` does."""
    folder, summary = sample_folder
    return Path(shutil.copytree(folder, tmp_path / "archive")), summary


@pytest.fixture
def ingested(sample: tuple[Path, Summary], tables: Tables) -> IngestReport:
    return ingest(tables, str(sample[0]))
