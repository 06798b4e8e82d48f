"""The start of the recorder's process, before its first upload; the rest needs a cluster (tests/cluster)."""

from __future__ import annotations

from pathlib import Path

import pytest

import serve.table_actor
from archive.stores import other_stores
from serve.table_actor import RecorderActor


async def test_uploads_leave_the_address_of_their_model_store_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("configure_logs", "give_way_all"):
        monkeypatch.setattr(serve.table_actor, name, lambda: None)
    monkeypatch.setenv("RESIGHT_MODELS", str(tmp_path / "models"))
    RecorderActor(str(tmp_path / "tables"))
    found = other_stores(str(tmp_path / "tables"), "s3://another/store")
    assert found == [str(tmp_path / "models")]
