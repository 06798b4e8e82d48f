"""Update `media` from an archive: list it once, hash new and changed files, mark those that are gone.

listing - catalogued rows (same path and content tag) --threads: read, hash, header, EXIF--> append/replace
An unchanged file is not read again, unless the last read failed, or a run found other bytes in it. New rows are
committed as they come, updated ones by archive/catalogue/row_updates.py. An archive without files is an error. If too
many files of one place are gone at once, their rows stay as they are (archive/catalogue/absences.py). An interrupted
ingest can be repeated and continues. Memory grows neither with the number of files nor with their sizes.
"""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from archive.catalogue.absences import withhold
from archive.catalogue.clips import ClipRows, Sampling, clip_rows
from archive.catalogue.diff import Difference, FileToRead, mismatches
from archive.catalogue.exiftool import BATCH, HEAD_BYTES, ExifTool, MakerNotes
from archive.catalogue.listing import EXTENSIONS, VIDEO_EXTENSIONS, ArchiveFile, Gap, list_files
from archive.catalogue.media import Template, compile_template, media_row, with_maker_notes
from archive.catalogue.roots import keep, kept, require_apart
from archive.catalogue.row_updates import Changes, add_files, replace_some
from archive.catalogue.uploads import require_camera
from archive.defaults import MAX_MIB
from archive.delta.replace import MANY_ROWS
from archive.delta.scratch_db import scratch
from archive.delta.snapshot import dataset
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import MEDIA
from model_store.errors import BadRequest, ImageTooLarge, StorageUnreachable
from model_store.images.video import require_video
from model_store.storage import Folder, absolute

COMMIT_ROWS = 5_000
READERS = 8


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Counts of one ingest: files = new + changed + unchanged + unreadable.

    Frames of clips are counted apart. `damaged_clips` have the reason, of the clips that were read.
    """

    root: str
    files: int
    new: int
    changed: int
    unchanged: int
    missing: int  # rows without a file; they keep their results
    others: int  # files without the extension of an image
    bytes_read: int
    unreadable: dict[str, str] = field(default_factory=dict)
    unlisted: dict[str, str] = field(default_factory=dict)  # folders that cannot be read
    withheld: dict[str, int] = field(default_factory=dict)  # places that lack too many files
    without_notes: dict[str, str] = field(default_factory=dict)  # files that ExifTool cannot read
    new_frames: int = 0
    damaged_clips: dict[str, str] = field(default_factory=dict)
    without_camera: int = 0  # of all present files


class _Listed(NamedTuple):
    unnamed: dict[str, str]  # names that cannot be stored, with the reason
    gaps: list[Gap]
    files: int
    others: int

    @property
    def unreadable(self) -> dict[str, str]:
        return {_printable(gap.path): _printable(gap.error) for gap in self.gaps if gap.error}


class _Outcome(NamedTuple):
    due: FileToRead
    row: dict[str, Any] | Exception
    head: bytes = b""  # of a JPEG, for ExifTool
    ended: Sequence[str] = ()  # catalogued frames that a clip lacks

    @property
    def kind(self) -> str:
        """Return `new`, `changed`, or `same` for a file that was read again and has the bytes and camera of its row."""
        if not self.due.has_row:
            return "new"
        known = (self.due.quick_digest, self.due.camera)
        is_same = isinstance(self.row, dict) and known == (self.row["quick_digest"], self.row["camera_id"])
        return "same" if self.due.quick_digest is not None and is_same else "changed"


def ingest(
    tables: Tables,
    url: str,
    template: str | None = None,
    verify: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    max_mib: int = MAX_MIB,
    believe: bool = False,
    exiftool: bool | None = None,
    sampling: Sampling | None = None,
) -> IngestReport:
    """Ingest a local folder or s3:// prefix.

    `template` defaults to the last one given for this archive. `verify` reads and hashes every file again. A file
    larger than `max_mib` counts as unreadable. With `believe`, any number of files may be marked as missing.
    `exiftool` adds maker notes to the rows, by default if it did at the last ingest; a change reads every file again.
    `sampling` catalogues clips and their frames, by default as at the last ingest; a change reads every clip again.
    Raises BadRequest (template, camera, sampling, overlapping archives, no ExifTool or PyAV), StorageUnreachable,
    TableConflict.
    """
    root = Folder(absolute(url))
    former_template, had_notes, former_sampling = kept(tables.url, root.url)
    sampled = former_sampling if sampling is None else sampling
    sampled.require_valid()
    if sampled.frames_per_second:
        require_video()
    compiled = compile_template(template or former_template)
    require_camera(compiled.camera)
    has_notes = had_notes if exiftool is None else exiftool
    with scratch("ingest") as sql, contextlib.ExitStack() as stack:
        diff = Difference(sql, root.url)
        tool = stack.enter_context(ExifTool()) if has_notes else None
        base = tables.snapshot("media")  # first, so that uploads during the listing are not gone
        writer = Writer(tables, "media", root.url, base)
        archives = diff.archives(base)
        started = datetime.now(UTC)
        try:
            if root.exists():  # else the listing reports it
                require_apart(root.url, archives)
            listed = _list(root, diff, sampled)
        except StorageUnreachable as error:
            hint = _unchanged(root.url) if root.url in archives else ""
            raise StorageUnreachable(f"{error}{hint}") from error
        catalogued = diff.load_known(base, mismatches(tables))
        left_out = 0 if sampled.frames_per_second else diff.leave_out_clips()
        _require_files(root.url, listed, catalogued, left_out)
        if template:
            _require_match(sql, template, compiled)
        keep(tables.url, root.url, template, None if catalogued else exiftool)  # no row is without notes
        todo = diff.plan(verify or has_notes != had_notes, sampled != former_sampling)
        unreadable = dict(listed.unnamed)
        total = todo.files + len(unreadable)
        outcomes = chain.from_iterable(
            _read_all(root, diff.todo(), compiled, max_mib << 20, HEAD_BYTES if tool else 0, sampled)
        )
        without_notes: dict[str, str] = {}
        if tool:
            outcomes = _with_notes(outcomes, tool, without_notes)
        withhold(sql, listed.gaps, believe=True)  # behind unreadable gaps; the others may have moved
        changes = Changes(writer, sql)
        written, frames = Counter[str](), Counter[str]()
        damaged: dict[str, str] = {}
        bytes_read = 0
        while part := list(islice(outcomes, COMMIT_ROWS)):
            unreadable |= {
                _printable(outcome.due.file.path): _printable(str(outcome.row) or type(outcome.row).__name__)
                for outcome in part
                if isinstance(outcome.row, Exception)
            }
            read = [(o.kind, o.row) for o in part if isinstance(o.row, dict)]
            clips = [row for _, row in read if row["frame_count"] is not None]
            damaged |= {row["path"]: row["header_error"] for row in clips if row["header_error"]}
            new = [row for kind, row in read if kind == "new"]
            if new:
                add_files(writer, pa.Table.from_pylist(new, schema=MEDIA))
            changes.add(pa.Table.from_pylist([row for kind, row in read if kind != "new"], schema=MEDIA))
            bytes_read += sum(row["size_bytes"] for _, row in read if row["clip_sha256"] is None)
            written.update(kind for kind, row in read if row["clip_sha256"] is None)
            frames.update(kind for kind, row in read if row["clip_sha256"] is not None)
            failed = [o.due for o in part if isinstance(o.row, Exception)]
            if stale := sorted(due.file.path for due in failed if due.quick_digest is not None):
                changes.add(diff.unread_rows(writer.newest(), stale))
            diff.end([path for outcome in part for path in outcome.ended])
            diff.arrive([row["media_sha256"] for kind, row in read if kind != "same"])
            added = [row["media_sha256"] for row in new]  # mark at once: a repetition does not read these again
            for rows in diff.moved_rows(writer.newest(), added, started):
                replace_some(writer, rows)
            if changes.due():
                changes.commit()
            progress(written.total() + len(unreadable), total)
        renamed = 0
        for rows in diff.renamed_rows(writer.newest(), compiled):
            changes.add(rows)
            renamed += rows["clip_sha256"].null_count
        changes.commit()
        keep(tables.url, root.url, None, exiftool, sampling)  # only now, so that a repetition reads what is left
        withheld = withhold(sql, listed.gaps, believe)
        gone = _mark_missing(writer, diff, started)
        nameless = (ds.field("source_root") == root.url) & ds.field("camera_id").is_null()
        present = ds.field("missing_since").is_null() & ds.field("clip_sha256").is_null()
        without_camera = dataset(writer.newest(), MEDIA).count_rows(filter=nameless & present)
    return IngestReport(
        root=root.url,
        files=listed.files,
        new=written["new"],
        changed=written["changed"] + renamed,
        unchanged=listed.files - total + written["same"] - renamed,
        missing=gone,
        others=listed.others,
        bytes_read=bytes_read,
        unreadable=unreadable,
        unlisted=listed.unreadable,
        withheld=withheld,
        without_notes=without_notes,
        new_frames=frames["new"],
        damaged_clips=damaged,
        without_camera=without_camera,
    )


def retire(tables: Tables, url: str) -> int:
    """Mark all files of an archive as missing, so that runs exclude them; return their number.

    Rows and results stay, and a later ingest restores the files that it finds. Raises BadRequest if no file of the
    archive is catalogued.
    """
    root_url = absolute(url)
    with scratch("ingest") as sql:
        diff = Difference(sql, root_url)  # nothing is listed, so everything is gone
        base = tables.snapshot("media")
        if not diff.load_known(base):
            raise BadRequest(f"no file of {root_url} is catalogued: 'resight status' lists the archives")
        return _mark_missing(Writer(tables, "media", root_url, base), diff, datetime.now(UTC))


def _list(root: Folder, diff: Difference, sampling: Sampling) -> _Listed:
    extensions = EXTENSIONS + (VIDEO_EXTENSIONS if sampling.frames_per_second else ())
    unnamed: dict[str, str] = {}
    gaps: list[Gap] = []
    files = others = 0
    for part in list_files(root, extensions):
        diff.list(part.files)
        files += len(part.files) + len(part.unnamed)
        others += part.others
        gaps += part.gaps
        unnamed |= {_printable(path): "its name is not UTF-8" for path in part.unnamed}
    return _Listed(unnamed, gaps, files, others)


def _require_match(sql: duckdb.DuckDBPyConnection, template: str, compiled: Template) -> None:
    """Raise BadRequest if a template matches no listed file: every file would lose its camera."""
    rows = sql.execute("select path from listed")
    path = ""
    while part := rows.fetchmany(COMMIT_ROWS):
        if any(compiled.pattern.fullmatch(path) for (path,) in part):
            return
        path = part[0][0]
    raise BadRequest(f"the template '{template}' matches no file, such as {path}; nothing was changed")


def _require_files(root_url: str, listed: _Listed, catalogued: int, left_out: int) -> None:
    """Raise StorageUnreachable if an archive lists no image, because it might not be mounted.

    An archive of clips only lists none if they are left out.
    """
    if listed.files or catalogued == left_out > 0:
        return
    unreadable = "".join(f"; cannot read {path}: {why}" for path, why in listed.unreadable.items())
    if catalogued:
        raise StorageUnreachable(
            f"{root_url} lists no images, but {catalogued} of its files are catalogued; is it mounted?"
            f"{_unchanged(root_url)}{unreadable[:500]}"
        )
    raise StorageUnreachable(
        f"{root_url} has no images ({listed.others} other files); is it mounted, is the name right?{unreadable[:500]}"
    )


def _unchanged(root_url: str) -> str:
    retire = f"resight ingest --retire {shlex.quote(root_url)}"
    return f" (nothing was changed; if it is permanently gone, run {retire})"


def _read_all(
    root: Folder, files: Iterable[FileToRead], compiled: Template, max_bytes: int, head_bytes: int, sampling: Sampling
) -> Iterator[list[_Outcome]]:
    """Yield the outcomes of each file, files in any order; those of the frames of a clip come before its own.

    An ingest that is killed between them reads the clip again. The files in memory are bounded in number and in bytes.
    """

    def read(due: FileToRead) -> list[_Outcome]:
        try:
            size = due.file.size_bytes
            if size > max_bytes:
                raise ImageTooLarge(f"{size >> 20} MiB, over --max-mib {max_bytes >> 20}")
            read_at = datetime.now(UTC)
            data = root.read(due.file.path)
            times = {"ingested_at": read_at, "catalogued_at": read_at}
            if due.file.path.lower().endswith(VIDEO_EXTENSIONS):
                return _clip_outcomes(due, clip_rows(root.url, due.file, data, compiled, sampling, due.frames), times)
            row = media_row(root.url, due.file, data, compiled)
            head = data[:head_bytes] if row["media_type"] == "image/jpeg" else b""
            return [_Outcome(due, row | times, head)]
        except (OSError, StorageUnreachable, ImageTooLarge, MemoryError) as error:
            return [_Outcome(due, error)]

    pending: dict[Future[list[_Outcome]], int] = {}
    queue = iter(files)
    following = next(queue, None)
    with ThreadPoolExecutor(READERS) as pool:
        while following or pending:
            while following and len(pending) < 2 * READERS:
                size = following.file.size_bytes if following.file.size_bytes <= max_bytes else 0
                if pending and sum(pending.values()) + size > MAX_MIB << 20:
                    break
                pending[pool.submit(read, following)] = size
                following = next(queue, None)
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                del pending[future]
                yield future.result()


def _clip_outcomes(due: FileToRead, rows: ClipRows, times: dict[str, Any]) -> list[_Outcome]:
    known = dict(due.frames)
    found = [row["path"] for row in rows.frames]
    outcomes: list[_Outcome] = []
    for path, row in zip(found, rows.frames, strict=True):
        file = ArchiveFile(path, row["size_bytes"], row["content_tag"])
        frame = FileToRead(file, path in known, known.get(path) if due.quick_digest else None, due.camera)
        outcomes.append(_Outcome(frame, row | times))
    return [*outcomes, _Outcome(due, rows.clip | times, ended=sorted(known.keys() - found))]


def _with_notes(outcomes: Iterator[_Outcome], tool: ExifTool, failures: dict[str, str]) -> Iterator[_Outcome]:
    """Yield outcomes with maker notes; a file that ExifTool cannot read has none and is added to `failures`."""
    while part := list(islice(outcomes, BATCH)):
        notes = iter(tool.read([outcome.head for outcome in part if outcome.head]))
        for outcome in part:
            row, found = outcome.row, next(notes) if outcome.head else None
            if isinstance(found, MakerNotes) and isinstance(row, dict):
                row = with_maker_notes(row, found)
            elif isinstance(found, Exception):
                failures[_printable(outcome.due.file.path)] = str(found)
            yield outcome._replace(row=row, head=b"")


def _printable(text: str) -> str:
    """Return a name in a form that can be printed and stored, even if it is not UTF-8 (Unix allows any bytes)."""
    return text.encode(errors="backslashreplace").decode()


def _mark_missing(writer: Writer, diff: Difference, listed_at: datetime) -> int:
    """Set missing_since on rows without a file, and keep their results. Return the number of all missing rows."""
    if diff.newly_gone(listed_at) > MANY_ROWS:
        writer.replace(diff.gone_marks())
    else:
        for rows in diff.gone_rows(writer.newest()):
            replace_some(writer, rows)
    return diff.gone()
