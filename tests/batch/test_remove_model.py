"""Test what needs a model version outside the model store: published views and running runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archive.delta.tables import Tables
from archive.views.views import View, Views
from batch.remove_model import require_unneeded
from batch.schedule.archive_state import SILENT
from model_store.errors import Conflict
from model_store.names import VersionId
from model_store.store import ModelStore
from tests.cli.ran import ran
from tests.fixtures_local import motion_store

ONE, TWO = VersionId("blobs", "1"), VersionId("blobs", "2")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return motion_store(tmp_path / "models", "1", "2", alias=None)


def test_what_a_view_shows_is_needed_until_another_is_published(tables: Tables, store: ModelStore) -> None:
    view = View(name="trial", inference_key="k", model_name="blobs", model_version="1", weights_sha256="w")
    Views(tables.url).publish(view, after=0)
    with pytest.raises(Conflict, match=r"view trial shows its results \(resight runs publish RUN"):
        require_unneeded(store, tables, ONE)
    require_unneeded(store, tables, TWO)
    Views(tables.url).publish(view.model_copy(update={"model_version": "2"}), after=1)
    require_unneeded(store, tables, ONE)


def test_what_a_run_uses_is_needed_until_it_ends_or_falls_silent(tables: Tables, store: ModelStore) -> None:
    now = datetime.now(UTC)
    ran(tables, store, "old", "1", "running", start=now - SILENT - timedelta(minutes=1))
    ran(tables, store, "done", "1", "running", "sealed", start=now - timedelta(minutes=2))
    require_unneeded(store, tables, ONE)
    ran(tables, store, "new", "1", "running", "running", start=now - timedelta(minutes=2))
    with pytest.raises(Conflict, match="run new uses it .*resight runs cancel new") as refused:
        require_unneeded(store, tables, ONE)
    assert "run old" not in str(refused.value)
    require_unneeded(store, tables, TWO)
