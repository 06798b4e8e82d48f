"""Disks that report the free space that a test gives them, and folders that cannot be read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from model_store.errors import StorageUnreachable
from model_store.storage import Folder


def disk_with(
    monkeypatch: pytest.MonkeyPatch, free_mib: int, free_files: int = 10**6, files: int = 10**7
) -> list[Path]:
    """Let every disk have this much free; return the places that are looked at from now on."""
    asked: list[Path] = []

    def disk(place: Path) -> SimpleNamespace:
        asked.append(place)
        blocks = free_mib << 8  # of 4 KiB
        return SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_favail=free_files, f_files=files)

    monkeypatch.setattr("os.statvfs", disk)
    return asked


def deny(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let no folder of this name be listed, as one of another user with mode 0700; tests may run as root."""
    names = Folder.names

    def denied(folder: Folder, relative: str = "") -> list[str]:
        if relative.partition("/")[0] == name:
            raise StorageUnreachable(f"cannot list {folder.path(relative)}: Permission denied")
        return names(folder, relative)

    monkeypatch.setattr(Folder, "names", denied)
