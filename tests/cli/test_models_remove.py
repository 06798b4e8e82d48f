"""resight models remove, and versions that were cut off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from model_store.names import VersionId
from model_store.store import ModelStore
from tests.cli.conftest import Resight
from tests.fixtures_local import MOTION, write_json

JSON = ("--format", "json")


@pytest.fixture
def store(home: Path) -> ModelStore:
    """No model yet."""
    return ModelStore(str(home / "models"))


def test_a_version_that_was_cut_off_is_listed_and_can_be_added_again_or_removed(
    resight: Resight, motion_config: Path, home: Path
) -> None:
    add = ("models", "add", "--name", "blobs", "--version", "1", "--config", motion_config)
    for repair in (add, ("models", "remove", "blobs@1", "--yes")):
        resight(*add).ok()
        (home / "models" / "blobs" / "1" / "READY").unlink()
        listed = resight("models", "list").err
        assert "unfinished: blobs@1" in listed
        assert "resight models remove blobs@1 --yes" in listed
        resight(*repair).ok()
        assert resight("models", "list").err == ""
        shutil.rmtree(home / "models")


def test_remove_says_what_it_would_do_and_with_yes_does_it(
    resight: Resight, motion_config: Path, home: Path, store: ModelStore, tmp_path: Path
) -> None:
    other = write_json(tmp_path / "other.json", {**MOTION, "score_floor": 0.2})
    add = ("models", "add", "--name", "blobs", "--version", "2", "--config")
    resight(*add, other).ok()
    place, before = home / "models" / "blobs" / "2", store.digests(VersionId("blobs", "2"))
    asked = resight("models", "remove", "blobs@2")
    assert "nothing was removed: add --yes" in asked.err
    assert store.verify(VersionId("blobs", "2")).digests == before
    removed = json.loads(resight("models", "remove", "blobs@2", "--yes", *JSON).ok())
    assert (removed["model"], removed["removed"]) == ("blobs@2", True)
    assert [path.name for path in place.iterdir()] == ["CLAIM"]
    listed = resight("models", "list", *JSON)
    assert (json.loads(listed.ok()), listed.err) == ([], ""), "it is not unfinished either"
    assert "blobs@2 is not in" in resight("models", "remove", "blobs@2", "--yes").refused(6)
    assert "was removed; choose another version" in resight(*add, motion_config).refused(6)
    resight(*add, other).ok()
    assert store.digests(VersionId("blobs", "2")) == before, "the same files bring it back"
