"""Model stores with results in the tables, and those that this machine can read."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import archive.retention
from archive.retention import address, other_stores, remember_store
from model_store.errors import StorageUnreachable
from model_store.storage import Folder


def test_each_store_is_recorded_once_and_this_one_is_no_other(tmp_path: Path) -> None:
    tables, mine = str(tmp_path / "tables"), str(tmp_path / "models")
    assert other_stores(tables, mine) == []
    for url in (mine, mine + "/", "s3://b/models", f"file://{tmp_path}/x y", "s3://b/models/"):
        remember_store(tables, url)
    assert other_stores(tables, mine) == [str(tmp_path / "x y"), "s3://b/models"]
    assert other_stores(tables, "s3://b/models") == [mine, str(tmp_path / "x y")]


def test_the_same_path_on_another_machine_is_another_store_and_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, mine = str(tmp_path / "tables"), str(tmp_path / "models")
    with monkeypatch.context() as patch:
        patch.setattr(archive.retention.socket, "gethostname", lambda: "field-station")
        remember_store(tables, mine)
        assert other_stores(tables, mine) == []
    assert address(mine) == f"{socket.gethostname()}:{mine}"
    with pytest.raises(StorageUnreachable, match=f"model store field-station:{mine} also has"):
        other_stores(tables, mine)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff"])
def test_a_damaged_record_is_an_error(tmp_path: Path, text: bytes) -> None:
    Folder(f"{tmp_path}/stores").write("a.json", text)
    with pytest.raises(StorageUnreachable, match=r"cannot read .*stores/a\.json"):
        other_stores(str(tmp_path), "/models")
