"""Require free space on a local disk before a program writes to it: tables, models, logs and Ray may share the disk."""

from __future__ import annotations

import os
from pathlib import Path

from model_store.errors import StorageFull, StorageUnreachable
from model_store.storage import absolute, is_local

FREE_FILES = 10_000
"""Files to leave free on a disk with a fixed number of them; small images exhaust these before the space."""


def require_free_space(url: str, free_mib: int, name: str, setting: str) -> None:
    """Raise StorageFull if the local disk of `url` has less than `free_mib` free.

    Object stores and a `free_mib` of 0 have no limit. The error has `name` for the folder, and the setting to lower.
    Raises StorageUnreachable.
    """
    if not is_local(url) or not free_mib:
        return
    folder = Path(absolute(url))
    try:
        place = next(p for p in (folder, *folder.parents) if p.exists())
        disk = os.statvfs(place)
    except OSError as error:
        raise StorageUnreachable(f"cannot stat {url}: {error}") from error
    free, files = disk.f_bavail * disk.f_frsize >> 20, disk.f_favail
    if free < free_mib or (disk.f_files and files < FREE_FILES):
        raise StorageFull(
            f"the disk of {name} has {free} MiB and {files} files free, but {free_mib} MiB and {FREE_FILES} "
            f"files are reserved: free some space, or lower {setting}"
        )
