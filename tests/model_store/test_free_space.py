"""Disks with less free space than is reserved, before they are full."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from model_store.errors import StorageFull
from model_store.free_space import FREE_FILES, require_free_space
from tests.support.disks import disk_with


@pytest.mark.parametrize(
    ("free_mib", "free_files", "files", "is_full"),
    [
        (1024, 10**6, 10**7, False),
        (1023, 10**6, 10**7, True),
        (10**6, FREE_FILES - 1, 10**7, True),
        (10**6, 0, 0, False),  # a file system without a file count, such as btrfs
    ],
)
def test_a_disk_is_full_before_nothing_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, free_files: int, files: int, is_full: bool
) -> None:
    asked = disk_with(monkeypatch, free_mib, free_files, files)
    place = str(tmp_path / "uploads")
    require_free_space(place, 0, "uploads", "x")
    with pytest.raises(StorageFull, match="of uploads has .* or lower x") if is_full else nullcontext():
        require_free_space(place, 1024, "uploads", "x")
    assert asked == [tmp_path]  # the folder does not exist yet
    require_free_space("memory://uploads", 1024, "uploads", "x")
