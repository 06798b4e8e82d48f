"""The start of the recorder's process, before its first upload; the rest needs a cluster (tests/cluster)."""

from __future__ import annotations

from pathlib import Path

import pytest

import serve.uploads.actors
from archive.retention import other_stores
from serve.uploads.actors import ANSWER_S, FIND_S, MAX_SEARCHES, RecorderActor


async def test_uploads_leave_the_address_of_their_model_store_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("configure_logs", "lower_process_priority"):
        monkeypatch.setattr(serve.uploads.actors, name, lambda: None)
    monkeypatch.setenv("RESIGHT_MODELS", str(tmp_path / "models"))
    RecorderActor(str(tmp_path / "tables"))
    found = other_stores(str(tmp_path / "tables"), "s3://another/store")
    assert found == [str(tmp_path / "models")]


def test_the_manual_has_the_limits_of_a_page_of_images() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "reference" / "uploads.md").read_text()
    assert f"A page has {FIND_S:g} s" in manual
    assert f"has not answered for {ANSWER_S:g} s" in manual
    assert f"{MAX_SEARCHES} searches of the cluster are running" in manual
