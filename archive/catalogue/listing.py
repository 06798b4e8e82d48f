"""List the files of an archive without reading them, a few thousand at a time.

Folder --list_files--> ListedPart(files: path, size and content tag; number of other files; gaps), ...
The extension selects the files of the archive; their bytes are examined later. No process holds all names at once.

A local disk is walked. S3 returns 1,000 keys per call, and each page needs the last key of the previous one. Keys are
sorted by their bytes, so `list_keys` splits the listing into ranges (after, until] and lists several concurrently. The
"folders" determine where to split: a bad choice costs time, but never a key. A prefix without folders is one range.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import Any

import pyarrow as pa

from model_store.errors import BadRequest, StorageUnreachable, StorageUnsafe
from model_store.storage import Folder, is_local
from model_store.storage_errors import storage_error

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".bmp")
VIDEO_EXTENSIONS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
FILES = pa.schema([("path", pa.string()), ("size_bytes", pa.int64()), ("content_tag", pa.string())])
FOUND_FILES = 20_000
HIDDEN = re.compile(r"(^|/)\.")
_LEADS_NOWHERE = (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors of a link without a target, for every user."""
LISTERS = 8
"""Concurrent calls; botocore's pool has 10 connections."""
PAGES = 10
"""Pages of a range after which it may be split again."""
CUTS = 2 * LISTERS
Entry = dict[str, Any]
ListObjects = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file of the archive. `content_tag` (ETag on S3, else size and mtime) changes if the bytes may have changed."""

    path: str
    size_bytes: int
    content_tag: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A folder or link without listed files: unreadable with `error`, else empty or without a target.

    A folder on which no disk is mounted is an empty one.
    """

    path: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ListedPart:
    """A part of an archive. `files` has the columns of FILES, in no order."""

    files: pa.Table
    others: int  # files without one of the extensions, and hidden files
    unnamed: tuple[str, ...]  # images with a name that is not UTF-8, which no table can store
    gaps: tuple[Gap, ...] = ()


def list_files(root: Folder, extensions: tuple[str, ...] = EXTENSIONS) -> Iterator[ListedPart]:
    """Yield every file below `root` with one of these extensions once, in parts.

    Raises StorageUnreachable if the folder does not exist or cannot be read, and on S3 if any part of the listing
    fails. Unreadable folders on a disk are gaps: their files might exist. Raises BadRequest for other file systems.
    """
    if not is_local(root.url) and not root.url.startswith("s3://"):
        raise BadRequest(f"invalid archive '{root.url}': use a folder of a local disk, or s3://bucket/prefix")
    try:
        if not root.fs.exists(root.root):
            raise StorageUnreachable(f"{root.url} does not exist{_hint(root)}, is the name right?")
        if is_local(root.url) and root.fs.isfile(root.root):
            raise BadRequest(f"{root.url} is a file: name its folder, {os.path.dirname(root.root)}")
        entries = _walk_local(root.root) if is_local(root.url) else _s3_entries(root)
        while part := list(islice(entries, FOUND_FILES)):
            yield _found(part, extensions)
    except (StorageUnreachable, BadRequest):
        raise
    except Exception as error:
        raise storage_error(f"list {root.url}", error) from error


def _hint(root: Folder) -> str:
    if is_local(root.url):
        return "; is it mounted"
    bucket = root.root.partition("/")[0]
    return f": no key of the bucket {bucket} begins so" if root.fs.exists(bucket) else f": there is no bucket {bucket}"


def file_at(root: Folder, path: str) -> ArchiveFile:
    """Return one file as the listing would.

    Raises StorageUnsafe if the path is not a file, and StorageUnreachable, also if it does not exist.
    """
    try:
        if is_local(root.url):
            status = os.stat(root.path(path))
            is_file = stat.S_ISREG(status.st_mode)
            file = ArchiveFile(path, status.st_size, _tag_of_stat(status))
        else:
            info: dict[str, Any] = root.fs.info(root.path(path))
            is_file = info["type"] == "file"
            file = ArchiveFile(path, int(info["size"] or 0), _tag(info))
    except Exception as error:
        raise StorageUnreachable(f"cannot stat {root.url}/{path}: {error}") from error
    if not is_file:
        raise StorageUnsafe(f"{root.url}/{path} is not a file: remove it")
    return file


def _found(entries: Iterable[ArchiveFile | Gap], extensions: tuple[str, ...]) -> ListedPart:
    others, files, unnamed, gaps = 0, [], [], []
    for entry in entries:
        if isinstance(entry, Gap):
            gaps.append(entry)
        elif not entry.path.lower().endswith(extensions) or HIDDEN.search(entry.path):
            others += 1
        elif is_utf8(entry.path):
            files.append(entry)
        else:
            unnamed.append(entry.path)
    columns = [[getattr(file, name) for file in files] for name in FILES.names]
    return ListedPart(pa.table(columns, schema=FILES), others, tuple(unnamed), tuple(gaps))


def is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk_local(top: str) -> Iterator[ArchiveFile | Gap]:
    """Walk real folders first, then links to folders in the order of their paths, each folder once.

    A new link therefore never changes the path of a file in a real folder. Hidden folders are skipped, because
    their files never count. Raises OSError if `top` cannot be listed; other folders become gaps.
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
    """Return a file, a gap, the path of a folder, or None for other entries.

    Raises OSError if the folder that contains the entry cannot be read.
    """
    is_link = entry.is_symlink()
    if entry.name.startswith(".") and (is_link or entry.is_dir()):
        return None
    try:
        if not is_link and entry.is_dir():
            return entry.path
        status = entry.stat()
    except FileNotFoundError:  # removed since the folder was opened, or a link without a target
        return Gap(entry.path[cut:]) if is_link else None
    except OSError as error:
        if not is_link:
            raise
        return None if error.errno in _LEADS_NOWHERE else Gap(entry.path[cut:], str(error))
    if stat.S_ISDIR(status.st_mode):
        return entry.path
    if not stat.S_ISREG(status.st_mode):
        return None
    return ArchiveFile(entry.path[cut:], status.st_size, _tag_of_stat(status))


def _s3_entries(root: Folder) -> Iterator[ArchiveFile]:
    bucket, _, inside = root.root.partition("/")
    prefix = f"{inside}/" if inside else ""
    fs: Any = root.fs
    call = partial(fs.call_s3, "list_objects_v2", Bucket=bucket, **fs.req_kw)
    for entries in list_keys(call, prefix):
        for entry in entries:
            yield ArchiveFile(entry["Key"][len(prefix) :], int(entry["Size"]), _tag(entry))


def _tag_of_stat(status: os.stat_result) -> str:
    return f"size:{status.st_size}:mtime:{status.st_mtime}"


def _tag(info: dict[str, Any]) -> str:
    etag = info.get("ETag")
    if etag:
        return f"etag:{str(etag).strip(chr(34))}"
    return f"size:{info.get('size')}:mtime:{info.get('mtime')}"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Range of keys after `after` ("": from the first) up to and including `until` (None: to the last)."""

    after: str = ""
    until: str | None = None


def list_keys(list_objects: ListObjects, prefix: str) -> Iterator[list[Entry]]:
    """Yield all keys. `list_objects` has the parameters (except Bucket) and the response of ListObjectsV2.

    Raises StorageUnreachable if the keys are not in the order of S3.
    """
    waiting: list[Stretch] = []
    with ThreadPoolExecutor(LISTERS) as pool:
        pending: set[Future[tuple[list[Entry], list[Stretch]]]] = {pool.submit(_cut, list_objects, prefix, Stretch())}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                entries, left = future.result()
                waiting += left
                if entries:
                    yield entries
                    if len(left) == 1 and len(waiting) + len(pending) < LISTERS:
                        stretch = waiting.pop()
                        pending.add(pool.submit(_cut, list_objects, prefix, stretch))
            while waiting and len(pending) < LISTERS:
                pending.add(pool.submit(_some_pages, list_objects, prefix, waiting.pop()))


def _some_pages(list_objects: ListObjects, prefix: str, stretch: Stretch) -> tuple[list[Entry], list[Stretch]]:
    """Return the first keys of a range, and the rest of the range."""
    entries: list[Entry] = []
    where = {"StartAfter": stretch.after} if stretch.after else {}
    pages, last = 0, stretch.after
    while pages < PAGES or not entries:
        page = list_objects(Prefix=prefix, **where)
        for entry in page.get("Contents", ()):
            key = entry["Key"]
            if key <= last:
                raise StorageUnreachable(
                    f"the listing of {prefix or 'the bucket'} has {key!r} after {last!r}, not in the order of S3: "
                    "files could be missed"
                )
            if stretch.until is not None and key > stretch.until:
                return entries, []
            entries.append(entry)
            last = key
        if not page.get("IsTruncated"):
            return entries, []
        where = {"ContinuationToken": page["NextContinuationToken"]}
        pages += 1
    return entries, [Stretch(last, stretch.until)]


def _cut(list_objects: ListObjects, prefix: str, stretch: Stretch) -> tuple[list[Entry], list[Stretch]]:
    """Split a range into up to CUTS ranges, which end where folders begin."""
    starts: set[str] = set()
    level: str | None = prefix
    while level is not None and len(starts) < LISTERS:
        folders = _folders(list_objects, level, stretch)
        starts.update(folders)
        level = _below(level, stretch.after) or (folders[0] if len(folders) == 1 else None)
    bounds = sorted(starts)
    bounds = bounds[:: -max(1, -(-len(bounds) // CUTS))][::-1]  # always with the last one
    edges = [stretch.after, *bounds, stretch.until]
    return [], [Stretch(after or "", until) for after, until in pairwise(edges)]


def _folders(list_objects: ListObjects, level: str, stretch: Stretch) -> list[str]:
    """Return the folders of one level in a range; if they need several pages, the last of each of the first pages."""
    folders: list[str] = []
    where = {"StartAfter": stretch.after} if stretch.after else {}
    while len(folders) < LISTERS:
        page = list_objects(Prefix=level, Delimiter="/", **where)
        names = [folder["Prefix"] for folder in page.get("CommonPrefixes", ())]
        inside = [name for name in names if name > stretch.after]
        if stretch.until is not None:
            inside = [name for name in inside if name < stretch.until]
        if not page.get("IsTruncated"):
            return folders + inside
        if not inside:
            return folders
        folders.append(inside[-1])
        where = {"ContinuationToken": page["NextContinuationToken"]}
    return folders


def _below(level: str, key: str) -> str | None:
    """Return the folder directly below `level` that contains `key`, or None."""
    if not key.startswith(level):
        return None
    name, slash, _ = key[len(level) :].partition("/")
    return level + name + slash if slash else None
