"""Walk an archive once: which files there are, without reading them.

Folder --list_files--> Listing(files with size and content tag, number of other files)
A file belongs to the archive by its extension; what it really is, its bytes decide later.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Any

from model_store.errors import StorageUnreachable
from model_store.storage import Folder, is_local

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """`content_tag` changes when the bytes may have: ETag on S3, size and mtime on a disk."""

    path: str
    size_bytes: int
    content_tag: str


@dataclass(frozen=True, slots=True)
class Listing:
    files: list[ArchiveFile]
    others: int  # files that are no images by name, hidden ones included


def list_files(root: Folder) -> Listing:
    """Raises StorageUnreachable when the folder does not exist or cannot be read."""
    try:
        if not root.fs.exists(root.root):
            raise StorageUnreachable(
                f"{root.url} does not exist; is it mounted, is the name right?"
            )
        found = _walk_local(root.root) if is_local(root.url) else _find(root)
    except StorageUnreachable:
        raise
    except Exception as error:
        raise StorageUnreachable(f"cannot list {root.url}: {error}") from error
    files: list[ArchiveFile] = []
    for name in sorted(found):
        path = name[len(root.root) :].lstrip("/")
        hidden = any(part.startswith(".") for part in path.split("/"))
        if not hidden and path.lower().endswith(EXTENSIONS):
            info = found[name]
            files.append(ArchiveFile(path, int(info.get("size") or 0), _content_tag(info)))
    return Listing(files, len(found) - len(files))


def _find(root: Folder) -> dict[str, Any]:
    found: Any = root.fs.find(root.root, detail=True)
    return dict(found)


def _walk_local(top: str) -> dict[str, Any]:
    """Path to size and mtime of every file below. Links to folders are followed, each folder once.

    Raises OSError for a folder that cannot be listed: files in it must not be taken for missing.
    """

    def stop(error: OSError) -> None:
        raise error

    found: dict[str, Any] = {}
    seen: set[str] = set()
    for folder, below, names in os.walk(top, followlinks=True, onerror=stop):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()  # which of two ways to a linked folder counts does not depend on the disk
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile, or a link to nothing
                facts = os.stat(path)
                if stat.S_ISREG(facts.st_mode):
                    found[path] = {"size": facts.st_size, "mtime": facts.st_mtime}
    return found


def _content_tag(info: dict[str, Any]) -> str:
    etag = info.get("ETag")
    if etag:
        return f"etag:{str(etag).strip(chr(34))}"
    return f"size:{info.get('size')}:mtime:{info.get('mtime')}"
