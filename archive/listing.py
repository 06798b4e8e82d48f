"""Walk an archive once: which files there are, without reading them.

Folder --list_files--> Listing(files with size and content tag, number of other files)
A file belongs to the archive by its extension; what it really is, its bytes decide later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_store.errors import StorageUnreachable
from model_store.storage import Folder

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
        found: Any = root.fs.find(root.root, detail=True)
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


def _content_tag(info: dict[str, Any]) -> str:
    etag = info.get("ETag")
    if etag:
        return f"etag:{str(etag).strip(chr(34))}"
    return f"size:{info.get('size')}:mtime:{info.get('mtime')}"
