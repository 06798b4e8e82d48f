"""Bring `media` up to date with an archive: walk once, hash what is new or changed, mark what is gone.

listing - known rows (same path and content tag) --threads: read, hash, header, EXIF--> append/replace
An unchanged file is not read again. New rows are committed as they come, changed ones by archive/changes.py.
An archive that suddenly lists nothing is an error, never "all gone". Interrupted, it goes on where it stopped.
Memory does not grow with the number of files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from archive.changes import Changes, replace_some, writer_of
from archive.difference import Difference, difference
from archive.listing import ArchiveFile, list_files
from archive.media import DEFAULT_TEMPLATE, compile_template, media_row
from archive.new_rows import add_files
from archive.replace import MANY_ROWS, replace_many
from archive.schemas import MEDIA
from archive.tables import Tables
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder, absolute

COMMIT_ROWS = 5_000
READERS = 8
_Outcome = tuple[ArchiveFile, bool, dict[str, Any] | Exception]
"""A file, whether it has a row already, and the row it shall have."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What happened to the files of one archive; files = new + changed + unchanged + unreadable."""

    root: str
    files: int
    new: int
    changed: int
    unchanged: int
    missing: int  # rows whose file is gone; they keep their results
    others: int  # files that are no images by name
    bytes_read: int
    unreadable: dict[str, str] = field(default_factory=dict)


def ingest(
    tables: Tables,
    url: str,
    template: str = DEFAULT_TEMPLATE,
    verify: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> IngestReport:
    """Ingest a local folder or s3:// prefix; `verify` reads and hashes every file again.

    Raises StorageUnreachable, BadRequest (template), TableConflict.
    """
    pattern = compile_template(template)
    root = Folder(absolute(url))
    with difference(root.url) as found:
        base = tables.snapshot("media")  # first: what is uploaded during the listing is not gone
        unreadable, files, others = _list(root, found)
        known = found.know(base)
        if known and not files:
            raise StorageUnreachable(
                f"{root.url} lists no images, but {known} are known from it; is it mounted? "
                "Nothing was changed. If it is gone for good: resight ingest --retire"
            )
        todo = found.plan(verify)
        total = todo.files + len(unreadable)
        outcomes = _read_all(root, found.todo(), pattern)
        changes = Changes(tables, root.url, found.sql)
        written: Counter[bool] = Counter()
        bytes_read = 0
        while part := list(islice(outcomes, COMMIT_ROWS)):
            unreadable |= {
                _shown(f.path): _shown(str(e)) for f, _, e in part if isinstance(e, Exception)
            }
            for has_row in (False, True):
                rows = [row for _, k, row in part if k is has_row and isinstance(row, dict)]
                if has_row:
                    changes.add(pa.Table.from_pylist(rows, schema=MEDIA))
                elif rows:
                    new = pa.Table.from_pylist(rows, schema=MEDIA)
                    base = add_files(tables, root.url, new, base)
                written[has_row] += len(rows)
                bytes_read += sum(row["size_bytes"] for row in rows)
            if changes.due():
                base = changes.commit(base)
            progress(written.total() + len(unreadable), total)
        base = changes.commit(base)
        gone = _mark_missing(tables, root.url, found, base)
    return IngestReport(
        root=root.url,
        files=files,
        new=written[False],
        changed=written[True],
        unchanged=files - total,
        missing=gone,
        others=others,
        bytes_read=bytes_read,
        unreadable=unreadable,
    )


def retire(tables: Tables, url: str) -> int:
    """An archive that is gone for good: mark all its files missing, so that runs leave them out.

    Rows and results stay, and an ingest brings back what is there after all. Returns how many files;
    raises BadRequest when none is known from there.
    """
    root_url = absolute(url)
    with difference(root_url) as nothing_listed:
        base = tables.snapshot("media")
        if not nothing_listed.know(base):
            raise BadRequest(
                f"no file is known from {root_url}; 'resight status' lists the archives"
            )
        return _mark_missing(tables, root_url, nothing_listed, base)


def _list(root: Folder, into: Difference) -> tuple[dict[str, str], int, int]:
    """(names that no table can hold with the reason, number of images with these, of other files)."""
    unnamed: dict[str, str] = {}
    files = others = 0
    for found in list_files(root):
        into.list(found.files)
        files += len(found.files) + len(found.unnamed)
        others += found.others
        for path in found.unnamed:
            try:
                path.encode()
            except UnicodeEncodeError as error:
                unnamed[_shown(path)] = _shown(str(error))
    return unnamed, files, others


def _read_all(
    root: Folder, files: Iterable[tuple[ArchiveFile, bool]], pattern: re.Pattern[str]
) -> Iterator[_Outcome]:
    """Rows in any order, with a bounded number of files in memory."""

    def read(file: ArchiveFile, has_row: bool) -> _Outcome:
        try:
            return file, has_row, media_row(root.url, file, root.read(file.path), pattern)
        except (OSError, StorageUnreachable) as error:
            return file, has_row, error

    pending: set[Future[_Outcome]] = set()
    queue = iter(files)
    with ThreadPoolExecutor(READERS) as pool:
        while True:
            pending |= {pool.submit(read, *f) for f in islice(queue, 2 * READERS - len(pending))}
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _shown(text: str) -> str:
    """A name that is not UTF-8 (Unix allows any bytes) in a form that can be printed and stored."""
    return text.encode(errors="backslashreplace").decode()


def _mark_missing(tables: Tables, root_url: str, found: Difference, base: DeltaTable) -> int:
    """Set missing_since on rows whose file is gone; the rows and their results stay."""
    if found.newly_gone(datetime.now(UTC)) > MANY_ROWS:
        replace_many(tables, "media", writer_of(root_url), found.gone_marks())
    else:
        for rows in found.gone_rows(base):
            base = replace_some(tables, root_url, rows, base)
    return found.gone()
