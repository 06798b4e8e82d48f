"""A catalogued sample archive; made once, copied for each test that writes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from batch.planning.plan import pinned
from examples.sample_archive import Summary, build
from model_store.store import ModelStore, ModelVersion
from tests.fixtures_local import MODELS, rows_of


@dataclass(frozen=True)
class Catalogue:
    root: Path
    summary: Summary
    tables: Tables

    @property
    def media(self) -> list[dict[str, Any]]:
        return rows_of(self.tables, "media")

    @property
    def images(self) -> dict[str, str]:
        """Return one path of each digest."""
        return {row["media_sha256"]: row["path"] for row in self.media}


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Return a catalogue that tests must not change."""
    place = tmp_path_factory.mktemp("batch")
    summary = build(place / "archive", images=24)
    tables = Tables(str(place / "tables"))
    ingest(tables, str(place / "archive"))
    return Catalogue(place / "archive", summary, tables)


@pytest.fixture
def catalogue(master: Catalogue, tmp_path: Path) -> Catalogue:
    """Return a copy of the tables; the archive is shared with `master`, so do not change its files."""
    place = shutil.copytree(master.tables.url, tmp_path / "tables")
    return Catalogue(master.root, master.summary, Tables(str(place)))


@pytest.fixture(scope="session")
def motion() -> ModelVersion:
    return pinned(ModelStore(str(MODELS)), "motion")
