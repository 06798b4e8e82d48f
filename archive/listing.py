"""Walk an archive once: list its files without reading them, a few thousand at a time.

Folder --list_files--> Found(files: path, size and content tag; number of other files; gaps), ...
A file belongs to the archive by its extension; its bytes decide later what it is. A local disk is
walked, S3 is listed in several places at once (s3_listing.py); nothing holds all names.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

from archive.s3_listing import list_keys
from model_store.errors import StorageUnreachable, StorageUnsafe
from model_store.storage import Folder, is_local

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".bmp")
FILES = pa.schema([("path", pa.string()), ("size_bytes", pa.int64()), ("content_tag", pa.string())])
FOUND_FILES = 20_000
HIDDEN = re.compile(r"(^|/)\.")
_LEADS_NOWHERE = (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors of a link that has neither a file nor a folder at its end, for every user."""


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """`content_tag` changes when the bytes may have: ETag on S3, size and mtime on a disk."""

    path: str
    size_bytes: int
    content_tag: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A folder or link that the listing found no files in. `error` when it cannot be read; None when it is empty
    or leads to nothing, as where a disk is not mounted."""

    path: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A part of an archive. `files` has the columns of FILES, in no order."""

    files: pa.Table
    others: int  # files that are no images by name, hidden ones included
    unnamed: tuple[str, ...]  # images whose name is not UTF-8: no table can hold them
    gaps: tuple[Gap, ...] = ()


def list_files(root: Folder) -> Iterator[Found]:
    """List every file below, once.

    Raises StorageUnreachable when the folder does not exist or cannot be read, and on S3 when any part of the
    listing fails. Folders of a disk that cannot be read are gaps: a file in them may be there.
    """
    try:
        if not root.fs.exists(root.root):
            raise StorageUnreachable(
                f"{root.url} does not exist; is it mounted, is the name right?"
            )
        entries = _entries(root)
        while part := list(islice(entries, FOUND_FILES)):
            yield _found(part)
    except StorageUnreachable:
        raise
    except Exception as error:
        raise StorageUnreachable(f"cannot list {root.url}: {error}") from error


def file_at(root: Folder, path: str) -> ArchiveFile:
    """Return one file as the listing has it.

    Raises StorageUnsafe when something else than a file is there, StorageUnreachable, also when nothing is.
    """
    try:
        if is_local(root.url):
            facts = os.stat(root.path(path))
            is_file = stat.S_ISREG(facts.st_mode)
            file = ArchiveFile(path, facts.st_size, _tag_of_stat(facts))
        else:
            info: dict[str, Any] = root.fs.info(root.path(path))
            is_file = info["type"] == "file"
            file = ArchiveFile(path, int(info["size"] or 0), _tag(info))
    except Exception as error:
        raise StorageUnreachable(f"cannot look at {root.url}/{path}: {error}") from error
    if not is_file:
        raise StorageUnsafe(f"{root.url}/{path} is not a file: remove it")
    return file


def _found(entries: Iterable[ArchiveFile | Gap]) -> Found:
    others, files, unnamed, gaps = 0, [], [], []
    for entry in entries:
        if isinstance(entry, Gap):
            gaps.append(entry)
        elif not entry.path.lower().endswith(EXTENSIONS) or HIDDEN.search(entry.path):
            others += 1
        elif is_utf8(entry.path):
            files.append(entry)
        else:
            unnamed.append(entry.path)
    columns = [[getattr(file, name) for file in files] for name in FILES.names]
    return Found(pa.table(columns, schema=FILES), others, tuple(unnamed), tuple(gaps))


def is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entries(root: Folder) -> Iterator[ArchiveFile | Gap]:
    if is_local(root.url):
        return _walk_local(root.root)
    if root.url.startswith(("s3://", "s3a://")):
        return _s3_entries(root)
    return _walk_other(root)


def _walk_local(top: str) -> Iterator[ArchiveFile | Gap]:
    """Walk real folders first, then links to folders in the order of their paths; each folder once.

    So a new link renames no file that has a path without links. Hidden folders are not entered, since their
    files never count. Raises OSError when the top cannot be listed; other folders are gaps.
    """
    top = top or "/"
    cut = len(top.rstrip("/")) + 1
    seen: set[str] = set()
    folders, links = [top], list[str]()
    while folders or links:
        folder = folders.pop() if folders else heapq.heappop(links)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                is_empty = True
                for entry in entries:
                    is_empty = False
                    found = _look(entry, cut)
                    if isinstance(found, str):
                        if entry.is_symlink():
                            heapq.heappush(links, found)
                        else:
                            folders.append(found)
                    elif found is not None:
                        yield found
        except OSError as error:
            if folder == top:
                raise
            if not (isinstance(error, PermissionError) and folder.endswith("/lost+found")):
                yield Gap(folder[cut:], str(error))
        else:
            if is_empty and folder != top:
                yield Gap(folder[cut:])


def _look(entry: os.DirEntry[str], cut: int) -> ArchiveFile | Gap | str | None:
    """Return a file, a gap, the path of a folder, or None for what belongs to no archive.

    Raises OSError when the folder that has the entry cannot be read.
    """
    is_link = entry.is_symlink()
    if entry.name.startswith(".") and (is_link or entry.is_dir()):
        return None
    try:
        if not is_link and entry.is_dir():
            return entry.path
        facts = entry.stat()
    except FileNotFoundError:  # removed since the folder was opened, or a link to nothing
        return Gap(entry.path[cut:]) if is_link else None
    except OSError as error:
        if not is_link:
            raise
        return None if error.errno in _LEADS_NOWHERE else Gap(entry.path[cut:], str(error))
    if stat.S_ISDIR(facts.st_mode):
        return entry.path
    if not stat.S_ISREG(facts.st_mode):
        return None
    return ArchiveFile(entry.path[cut:], facts.st_size, _tag_of_stat(facts))


def _s3_entries(root: Folder) -> Iterator[ArchiveFile]:
    bucket, _, inside = root.root.partition("/")
    prefix = f"{inside}/" if inside else ""
    fs: Any = root.fs
    call = partial(fs.call_s3, "list_objects_v2", Bucket=bucket, **fs.req_kw)
    for entries in list_keys(call, prefix):
        for entry in entries:
            yield ArchiveFile(entry["Key"][len(prefix) :], int(entry["Size"]), _tag(entry))


def _walk_other(root: Folder) -> Iterator[ArchiveFile]:
    walked: Any = root.fs.walk(root.root, detail=True, on_error="raise")
    for _, _, files in walked:
        for info in files.values():
            path = info["name"][len(root.root) :].lstrip("/")
            yield ArchiveFile(path, int(info.get("size") or 0), _tag(info))


def _tag_of_stat(facts: os.stat_result) -> str:
    return f"size:{facts.st_size}:mtime:{facts.st_mtime}"


def _tag(info: dict[str, Any]) -> str:
    etag = info.get("ETag")
    if etag:
        return f"etag:{str(etag).strip(chr(34))}"
    return f"size:{info.get('size')}:mtime:{info.get('mtime')}"
