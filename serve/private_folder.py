"""A folder below the system's temporary folder that no other user can read or write.

Sockets, locks, logs and start folders of Resight's processes lie below it. The name is predictable and the
temporary folder belongs to everybody, so its owner and mode are checked at each use.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from model_store.errors import ClusterError


def private_path() -> Path:
    """Return TMPDIR/resight-UID. Nothing is created or checked."""
    return Path(tempfile.gettempdir()).resolve() / f"resight-{os.geteuid()}"


def private_folder() -> Path:
    """Return `private_path`, created on first use.

    Raises ClusterError if another user owns it, may write to it, or may replace it.
    """
    folder = private_path()
    for above in folder.parents:
        if _is_shared(above.stat().st_mode):
            raise ClusterError(
                f"{above} lets every user replace what is in it: set its sticky bit, or set TMPDIR "
                "to a folder of your own"
            )
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise ClusterError(
            f"cannot create {folder}: {error}; set TMPDIR to another folder"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ClusterError(
            f"{folder} must be a folder of uid {os.geteuid()} with mode 0700; it is {stat.filemode(found.st_mode)} "
            f"of uid {found.st_uid}: remove it, or set TMPDIR to a folder of your own"
        )
    return folder


def _is_shared(mode: int) -> bool:
    """Return whether every user may rename or delete what others put there."""
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX
