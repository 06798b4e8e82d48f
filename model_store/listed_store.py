"""A model store that is read again and again: on S3, a reading without changes costs one request for 1,000 files.

`list_again` lists the store. Then names and existence are those of the listing, and a file is requested only if it has
changed since it was last read. A disk is read as it is.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from model_store.storage import Folder, is_local
from model_store.store import ModelStore


@dataclass
class _Listing:
    """`marks`: a text for each file that changes with it, of its ETag, size and time; None before the first listing."""

    marks: dict[str, str] | None = None
    names: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    contents: dict[str, tuple[str, bytes]] = field(default_factory=dict[str, tuple[str, bytes]])


@dataclass(frozen=True)
class ListedFolder(Folder):
    """A folder as it was last listed. Use it for small files: those that were read stay in memory."""

    _listing: _Listing = field(init=False, repr=False, compare=False, default_factory=_Listing)

    def list_again(self) -> None:
        """List all files below. Raises StorageUnreachable; the last listing then stays."""
        if is_local(self.url):
            return
        with self._attempt("list"):
            found: dict[str, dict[str, Any]] = self.fs.find(self.root, detail=True)  # type: ignore[assignment]
        marks = {path[len(self.root) + 1 :]: repr(sorted(about.items())) for path, about in found.items()}
        names: dict[str, set[str]] = defaultdict(set)
        for path in marks:
            parts = path.split("/")
            for depth, name in enumerate(parts):
                names["/".join(parts[:depth])].add(name)
        listing = self._listing
        listing.marks, listing.names = marks, {folder: sorted(below) for folder, below in names.items()}
        listing.contents = {path: kept for path, kept in listing.contents.items() if path in marks}

    def names(self, relative: str = "") -> list[str]:
        return super().names(relative) if self._listing.marks is None else self._listing.names.get(relative, [])

    def exists(self, relative: str = "") -> bool:
        marks = self._listing.marks
        return super().exists(relative) if marks is None else relative in marks or relative in self._listing.names

    def read(self, relative: str) -> bytes:
        marks, contents = self._listing.marks, self._listing.contents
        if marks is None:
            return super().read(relative)
        if relative not in marks:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path(relative))
        if contents.get(relative, ("",))[0] != marks[relative]:  # one written after the listing is read again
            contents[relative] = (marks[relative], super().read(relative))
        return contents[relative][1]


class ListedStore(ModelStore):
    """A store as of its last `list_again`. Not thread-safe."""

    folder: ListedFolder

    def __init__(self, url: str) -> None:
        self.folder = ListedFolder(url)

    def list_again(self) -> None:
        """List all files of the store. Raises StorageUnreachable; the last listing then stays."""
        self.folder.list_again()
