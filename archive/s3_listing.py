"""Every key under an S3 prefix, several stretches of the listing at the same time.

call("list_objects_v2", ...), prefix --list_keys--> lists of entries (Key, Size, ETag), in no order
S3 gives 1,000 keys a call, and a page needs the last key of the page before it. But keys come in order of
their bytes, so a listing can be cut into stretches, (after, until] and (until, ...]. Where to cut is read off
the "folders"; a cut in a bad place costs time, never a key. A prefix without folders is one stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from model_store.errors import StorageUnreachable

LISTERS = 8
"""Calls at a time; botocore's pool has 10 connections."""
PAGES = 10
"""Pages of a stretch after which it may be cut again."""
CUTS = 2 * LISTERS
Entry = dict[str, Any]
ListObjects = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Keys behind `after` up to and with `until`; "" and None: from the first, to the last."""

    after: str = ""
    until: str | None = None


def list_keys(list_objects: ListObjects, prefix: str) -> Iterator[list[Entry]]:
    """`list_objects` takes the parameters of ListObjectsV2 but the bucket, and answers as it does.

    Raises StorageUnreachable when keys come in another order than S3 gives them.
    """
    waiting: list[Stretch] = []
    with ThreadPoolExecutor(LISTERS) as pool:
        pending: set[Future[tuple[list[Entry], list[Stretch]]]] = {
            pool.submit(_cut, list_objects, prefix, Stretch())
        }
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


def _some_pages(
    list_objects: ListObjects, prefix: str, stretch: Stretch
) -> tuple[list[Entry], list[Stretch]]:
    """The first keys of a stretch, and what is left of it."""
    entries: list[Entry] = []
    where = {"StartAfter": stretch.after} if stretch.after else {}
    pages, last = 0, stretch.after
    while pages < PAGES or not entries:
        page = list_objects(Prefix=prefix, **where)
        for entry in page.get("Contents", ()):
            key = entry["Key"]
            if key <= last:
                raise StorageUnreachable(
                    f"the listing of {prefix or 'the bucket'} goes from {last!r} to {key!r}: not in the "
                    "order of S3, so that files could be missed"
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


def _cut(
    list_objects: ListObjects, prefix: str, stretch: Stretch
) -> tuple[list[Entry], list[Stretch]]:
    """The same stretch in up to CUTS parts, which end where folders begin."""
    found: set[str] = set()
    level: str | None = prefix
    while level is not None and len(found) < LISTERS:
        folders = _folders(list_objects, level, stretch)
        found.update(folders)
        level = _below(level, stretch.after) or (folders[0] if len(folders) == 1 else None)
    bounds = sorted(found)
    bounds = bounds[:: -max(1, -(-len(bounds) // CUTS))][::-1]  # the last one is among them
    edges = [stretch.after, *bounds, stretch.until]
    return [], [Stretch(after or "", until) for after, until in pairwise(edges)]


def _folders(list_objects: ListObjects, level: str, stretch: Stretch) -> list[str]:
    """Folders of one level in a stretch; of more than a page, the last of each of the first pages."""
    found: list[str] = []
    where = {"StartAfter": stretch.after} if stretch.after else {}
    while len(found) < LISTERS:
        page = list_objects(Prefix=level, Delimiter="/", **where)
        names = [folder["Prefix"] for folder in page.get("CommonPrefixes", ())]
        inside = [name for name in names if name > stretch.after]
        if stretch.until is not None:
            inside = [name for name in inside if name < stretch.until]
        if not page.get("IsTruncated"):
            return found + inside
        if not inside:
            return found
        found.append(inside[-1])
        where = {"ContinuationToken": page["NextContinuationToken"]}
    return found


def _below(level: str, key: str) -> str | None:
    """The folder in `level` that `key` lies in."""
    if not key.startswith(level):
        return None
    name, slash, _ = key[len(level) :].partition("/")
    return level + name + slash if slash else None
