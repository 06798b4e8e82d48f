"""Remove the temporary files of processes that were killed while they wrote; no program reads them."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from model_store.storage import is_local

OLD_S = 24 * 3600
WRITING = "**/.writing-*"
"""Pattern of the files that `Folder.write` renames, in a folder and all below it."""


def leftovers(url: str, pattern: str = WRITING) -> Iterator[Path]:
    """Yield files and folders of a local folder that match the pattern and are more than a day old; ignore errors."""
    for path in Path(url.removeprefix("file://")).glob(pattern) if is_local(url) else ():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > OLD_S:
                yield path


def remove_leftovers(url: str, pattern: str = WRITING) -> None:
    """Remove what `leftovers` yields; ignore errors."""
    for path in leftovers(url, pattern):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a whole folder; ignore errors."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
