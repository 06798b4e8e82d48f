"""Remove the temporary files of processes that were killed while they wrote; no program reads them."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from model_store.storage import is_local

OLD_S = 24 * 3600
WRITING = "**/.writing-*"
"""Pattern of the files that `Folder.write` renames, in a folder and all below it."""


def remove_leftovers(url: str, pattern: str = WRITING) -> None:
    """Remove files of a local folder that match the pattern and are more than a day old; ignore errors."""
    if not is_local(url):
        return
    for path in Path(url.removeprefix("file://")).glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > OLD_S:
                path.unlink()
