"""A folder below the system's temporary folder that no other user can read or write.

It contains sockets, locks, logs and start folders of Resight's processes. Its name is predictable and the temporary
folder is shared by all users, so owner and mode are checked at each use.
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
    """Return `private_path`, created on first use. Raises ClusterError if another user owns it or may change it."""
    folder = private_path()
    for parent in folder.parents:
        _require_no_replacement(parent)
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError as error:
        raise ClusterError(f"cannot create {folder}: {error}; set TMPDIR to another folder") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ClusterError(
            f"{folder} must be a folder of uid {os.geteuid()} with mode 0700; it is {stat.filemode(status.st_mode)} "
            f"of uid {status.st_uid}: remove it, or set TMPDIR to a folder of your own"
        )
    return folder


def _require_no_replacement(parent: Path) -> None:
    """Raise ClusterError if other users may rename or delete files of this user in the folder.

    The sticky bit forbids it, as in /tmp; a folder of this user that its group may write to gets that bit. The group 0
    has only administrators.
    """
    status = parent.stat()
    by_all = bool(status.st_mode & stat.S_IWOTH)
    by_group = bool(status.st_mode & stat.S_IWGRP) and status.st_gid != 0
    if status.st_mode & stat.S_ISVTX or not (by_all or by_group):
        return
    if not by_all and status.st_uid == os.geteuid():
        with contextlib.suppress(OSError):  # on a read-only file system, for example
            parent.chmod(stat.S_IMODE(status.st_mode) | stat.S_ISVTX)
            return
    who = "every user" if by_all else f"its group (gid {status.st_gid})"
    raise ClusterError(
        f"{parent} lets {who} replace its files: set its sticky bit (chmod +t {parent}), or set TMPDIR to a folder of "
        "your own"
    )
