"""Temporary files of killed processes are removed once they are old, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

from model_store.leftovers import OLD_S, remove_leftovers
from model_store.names import version_id
from model_store.store import ModelStore
from tests.fixtures_local import motion_store


def put(path: Path, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    at_s = time.time() - age_s
    os.utime(path, (at_s, at_s))
    return path


def test_only_old_files_of_the_pattern_are_removed(tmp_path: Path) -> None:
    gone = [put(tmp_path / place / ".writing-x1", OLD_S + 60) for place in (".", "a", "a/b")]
    kept = [put(tmp_path / "a" / ".writing-x2", 60), put(tmp_path / "a" / "weights", OLD_S + 60)]
    remove_leftovers(f"file://{tmp_path}")
    assert [path.exists() for path in (*gone, *kept)] == [False] * 3 + [True] * 2
    remove_leftovers(str(tmp_path / "none"))
    remove_leftovers("s3://bucket/folder")


def test_a_publication_removes_those_of_its_model(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "models", "1")
    left = put(tmp_path / "models" / "blobs" / "1" / ".writing-x", OLD_S + 60)
    files = store.read_files(store.describe(version_id("blobs", "1")))
    ModelStore(store.url).publish(version_id("blobs", "2"), files)
    assert not left.exists()


def test_an_old_folder_is_removed_with_its_files(tmp_path: Path) -> None:
    file = put(tmp_path / ".resight-x.part" / "a" / "half", 0)
    at_s = time.time() - OLD_S - 60
    os.utime(tmp_path / ".resight-x.part", (at_s, at_s))
    remove_leftovers(str(tmp_path), ".resight-*.part")
    assert not file.parent.parent.exists()
