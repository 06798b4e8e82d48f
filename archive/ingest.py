"""Bring `media` up to date with an archive: walk once, hash what is new or changed, mark what is gone.

listing - known rows (same path and content tag) --threads: read, hash, header, EXIF--> append/replace
An unchanged file is not read again. An archive that suddenly lists nothing is an error, never "all
gone". Interrupted, it goes on where it stopped.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.listing import ArchiveFile, list_files
from archive.media import DEFAULT_TEMPLATE, compile_template, media_row
from archive.schemas import MEDIA
from archive.tables import Tables
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder, absolute

COMMIT_ROWS = 5_000
READERS = 8
SAME_FILE = ("source_root", "path")


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
    listing = list_files(root)
    known = _known(tables.snapshot("media"), root.url)
    if known and not listing.files:
        raise StorageUnreachable(
            f"{root.url} lists no images, but {len(known)} are known from it; is it mounted? "
            "Nothing was changed. If it is gone for good: resight ingest --retire"
        )
    tags = {path: row["content_tag"] for path, row in known.items() if row["missing_since"] is None}
    todo = [f for f in listing.files if verify or tags.get(f.path) != f.content_tag]
    outcomes = _read_all(root, todo, pattern)
    unreadable: dict[str, str] = {}
    rows_written = bytes_read = 0
    while part := list(islice(outcomes, COMMIT_ROWS)):
        rows = [row for _, row in part if isinstance(row, dict)]
        unreadable |= {_shown(f.path): _shown(str(e)) for f, e in part if isinstance(e, Exception)}
        _write(tables, root.url, rows, known)
        rows_written += len(rows)
        bytes_read += sum(row["size_bytes"] for row in rows)
        progress(rows_written + len(unreadable), len(todo))
    gone = _mark_missing(tables, root.url, known, {f.path for f in listing.files})
    new = sum(1 for f in todo if f.path not in known and _shown(f.path) not in unreadable)
    return IngestReport(
        root=root.url,
        files=len(listing.files),
        new=new,
        changed=len(todo) - new - len(unreadable),
        unchanged=len(listing.files) - len(todo),
        missing=gone,
        others=listing.others,
        bytes_read=bytes_read,
        unreadable=unreadable,
    )


def retire(tables: Tables, url: str) -> int:
    """An archive that is gone for good: mark all its files missing, so that runs leave them out.

    Rows and results stay, and an ingest brings back what is there after all. Returns how many files;
    raises BadRequest when none is known from there.
    """
    root_url = absolute(url)
    known = _known(tables.snapshot("media"), root_url)
    if not known:
        raise BadRequest(f"no file is known from {root_url}; 'resight status' lists the archives")
    return _mark_missing(tables, root_url, known, set())


def _known(snapshot: DeltaTable, root_url: str) -> dict[str, dict[str, Any]]:
    table = snapshot.to_pyarrow_dataset().to_table(filter=pc.field("source_root") == root_url)
    return {row["path"]: row for row in table.to_pylist()}


def _read_all(
    root: Folder, files: Iterable[ArchiveFile], pattern: re.Pattern[str]
) -> Iterator[tuple[ArchiveFile, dict[str, Any] | Exception]]:
    """Rows in any order, with a bounded number of files in memory."""

    def read(file: ArchiveFile) -> tuple[ArchiveFile, dict[str, Any] | Exception]:
        try:
            file.path.encode()
            return file, media_row(root.url, file, root.read(file.path), pattern)
        except (OSError, StorageUnreachable, UnicodeEncodeError) as error:
            return file, error

    pending: set[Future[tuple[ArchiveFile, dict[str, Any] | Exception]]] = set()
    queue = iter(files)
    with ThreadPoolExecutor(READERS) as pool:
        while True:
            pending |= {pool.submit(read, f) for f in islice(queue, 2 * READERS - len(pending))}
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _shown(text: str) -> str:
    """A name that is not UTF-8 (Unix allows any bytes) in a form that can be printed and stored."""
    return text.encode(errors="backslashreplace").decode()


def _write(
    tables: Tables, root_url: str, rows: list[dict[str, Any]], known: dict[str, dict[str, Any]]
) -> None:
    """New paths are appended; changed ones replace their row in the same commit."""
    if not rows:
        return
    table = pa.Table.from_pylist(rows, schema=MEDIA)
    changed = any(row["path"] in known for row in rows)

    def missing(snapshot: DeltaTable, wanted: pa.Table) -> pa.Table:
        if changed:
            return wanted
        paths = pa.array(_known(snapshot, root_url), pa.string())
        return wanted.filter(pc.invert(pc.is_in(wanted["path"], paths)))

    tables.append(
        "media", table, f"media:{root_url}", missing, replace=SAME_FILE if changed else ()
    )


def _mark_missing(
    tables: Tables, root_url: str, known: dict[str, dict[str, Any]], present: set[str]
) -> int:
    """Set missing_since on rows whose file is gone; the rows and their results stay."""
    gone = [row for path, row in known.items() if path not in present]
    fresh = [row | {"missing_since": datetime.now(UTC)} for row in gone if not row["missing_since"]]
    _write(tables, root_url, fresh, known)
    return len(gone)
