"""Remove the temporary files of processes that were killed while they wrote; no program reads them."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from model_store.storage import is_local

OLD_S = 24 * 3600
WRITING = "**/.writing-*"
"""Pattern of the files that `Folder.write` renames, in a folder and all below it."""


def remove_leftovers(url: str, pattern: str = WRITING) -> None:
    """Remove files and folders of a local folder that match the pattern and are more than a day old; ignore errors."""
    if not is_local(url):
        return
    for path in Path(url.removeprefix("file://")).glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > OLD_S:
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a whole folder; ignore errors."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
