"""Disks that report the free space that a test gives them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest


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
