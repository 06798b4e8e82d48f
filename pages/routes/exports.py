"""/ui/exports: the images of a filter as a file, the same as a command, and the exports so far.

POST /ui/v1/exports answers the file; GET /ui/v1/exports lists the exports so far.
"""

from __future__ import annotations

import asyncio
import glob
import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import Field, model_validator
from starlette.types import Receive, Scope, Send

from archive.catalogue.images import PRESENT
from archive.catalogue.local_time import end_in_words
from archive.delta.sql_literal import literal
from archive.formats.export_file import export_file
from archive.formats.file_formats import FORMATS, FileFormat
from archive.views.exports import export, remove_record
from archive.views.image_filter import FILTERED, ImageFilter, condition, statement
from archive.views.query import archives, query
from archive.views.search import view_shown
from archive.views.views import PRODUCTION, View
from batch.publishing.publish import labels_of
from batch.runs.scope import MIDNIGHT, in_words
from model_store.errors import BadRequest
from model_store.frozen import Frozen
from model_store.storage_errors import storage_error
from pages.context import Context
from pages.forms import fields_of
from pages.html import identity_of, page
from pages.routes.images import FormFilter
from serve.api.bodies import SmallBodyRoute
from serve.api.limits import PIECE_BYTES
from serve.inference.admission import Threads

MAX_EXPORTS, MEMORY_MIB = 2, 1024
"""Exports that are written concurrently, and the memory of each; more data spills to TMPDIR, where the file is too."""
TABLE_TYPES = {"csv": "CSV", "parquet": "Parquet"}
TYPES = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
    "zip": "application/zip",
}
_OF_SCOPE = ("camera", "deployment", "location", "label", "min_score")
"""Conditions of a filter that are options of `resight export`; also a time, and the start of a path."""
_OF_LIST = ("status", "reviewed", "flagged", "event_id")
"""Conditions that only a list of images can have."""


class ExportBody(Frozen):
    """The matching images in the format of another tool; with `relation`, its rows of them as a table.

    Of `detections` as a table, the rows have the label and score too.
    """

    relation: Literal["detections", "results"] | None = None
    format: str = Field(
        json_schema_extra={"enum": [*TABLE_TYPES, *FORMATS]},
        description="csv or parquet of a relation; without one, a format of `resight export`",
    )
    filter: ImageFilter = ImageFilter()
    folder: str | None = Field(default=None, description="only files of this archive; formats with relative paths")
    floor: float = Field(default=0, ge=0, le=1, description="of a format: leave out detections below this score")
    options: dict[str, Any] = Field(
        default={}, description="options of the format; `package` is its content, as an object"
    )

    @property
    def narrowed_by(self) -> dict[str, Any]:
        """Return the conditions on its images, by name."""
        given = self.filter.model_dump(mode="json", exclude_none=True, exclude={"view"})
        return given | ({"folder": self.folder} if self.folder else {})

    @model_validator(mode="after")
    def _fits(self) -> ExportBody:
        names = TABLE_TYPES if self.relation else tuple(FORMATS)
        if self.format not in names:
            raise ValueError(f"unknown format '{self.format[:80]}': use one of {', '.join(names)}")
        if self.relation and (self.folder or self.floor or self.options):
            raise ValueError("folder, floor and options apply to formats without a relation")
        if not isinstance(self.options.get("package", {}), dict | None):
            raise ValueError("options.package: send its content as an object, not the name of a file")
        return self


class Download(StreamingResponse):
    """Send a file that has no name any more. If the client leaves before its end, `cancelled` is called."""

    def __init__(self, file: IO[bytes], cancelled: Callable[[], None], **more: Any) -> None:
        super().__init__(self._chunks(), **more)
        self._file, self._cancelled, self._is_sent = file, cancelled, False

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._file.read(PIECE_BYTES):
            yield chunk
        self._is_sent = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()
            if not self._is_sent:
                await asyncio.shield(asyncio.to_thread(self._cancelled))


def router(context: Context) -> APIRouter:
    routes, tables = APIRouter(route_class=SmallBodyRoute, tags=["exports"]), context.tables
    writing = Threads(MAX_EXPORTS, "exports are being written", MAX_EXPORTS)

    @routes.get("/exports", include_in_schema=False)
    def exports(request: Request, wanted: Annotated[FormFilter, Query()]) -> HTMLResponse:
        roots = _roots(context, wanted)
        given = wanted.model_dump(mode="json", include=set(ImageFilter.model_fields), exclude_defaults=True)
        return page(
            request,
            "exports.html",
            wanted=wanted,
            review=None,
            types=TABLE_TYPES,
            count=context.index.count(wanted),
            tables={name: _sql(statement(name, wanted), wanted.view, f"{name}.csv") for name in FILTERED},
            formats=[
                (fmt, fields_of(fmt.option_class), roots if fmt.has_one_root else [], command(fmt, wanted, roots))
                for fmt in FORMATS.values()
            ],
            query={name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()},
            past=[row | {"filter": row["filter"] and in_words(json.loads(row["filter"]))} for row in past(50)],
            **context.filter_choices(wanted),
        )

    @routes.get("/v1/exports")
    def past(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> list[dict[str, Any]]:
        """Return the newest rows of the table `exports`."""
        if tables.existing("exports") is None:
            return []
        return query(tables, f"from exports order by exported_at desc limit {limit}").to_pylist()

    @routes.post(
        "/v1/exports",
        response_class=StreamingResponse,
        responses={200: {"content": {kind: {} for kind in TYPES.values()}}},
    )
    async def download(request: Request, body: ExportBody) -> StreamingResponse:
        """Return the file, of a folder as ZIP. Unless it is cancelled, it is recorded, as by `resight export`."""
        suffix = body.format if body.relation else FORMATS[body.format].suffix[1:] or "zip"
        name = f"{body.relation or body.format}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.{suffix}"
        record = f"{name} ({identity_of(request).name})"
        written = asyncio.create_task(writing.run(_written, context, body, name, record))
        try:
            file, size = await asyncio.shield(written)
        except asyncio.CancelledError:
            await asyncio.wait([written])
            if written.exception() is None:
                await asyncio.to_thread(_forget, context, record)
            raise
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(size),
            "Cache-Control": "no-store",
        }
        return Download(file, lambda: _forget(context, record), headers=headers, media_type=TYPES[suffix])

    return routes


def command(fmt: FileFormat, asked: ImageFilter, roots: list[str]) -> str:
    """Return the command line of an export; a list of images before it if no option has a condition."""
    words = ["resight", "export", fmt.name, f"{fmt.name}{fmt.suffix}"]
    words += ["--view", asked.view] if asked.view != PRODUCTION else []
    words += ["--folder", roots[0]] if fmt.has_one_root and roots else []
    if any(getattr(asked, name) is not None for name in _OF_LIST):
        images = f"select media_sha256 from images where {condition('images', asked)}"
        return f"{_sql(images, asked.view, 'images.csv')}\n{shlex.join([*words, '--ids', 'images.csv'])}"
    given = {name: getattr(asked, name) for name in _OF_SCOPE} | {
        "since": asked.since and asked.since.isoformat().removesuffix(MIDNIGHT),
        "until": asked.until and end_in_words(asked.until),
        "path": asked.path and f"{glob.escape(asked.path)}*",
    }
    for name, value in given.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _sql(text: str, view: str, file: str) -> str:
    """Return the command line that writes the rows of a statement to a CSV file."""
    quoted = shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'
    return f"resight sql {quoted}{f' --view {view}' if view != PRODUCTION else ''} --format csv > {file}"


def _roots(context: Context, asked: ImageFilter) -> list[str]:
    """Return the archives with present files that match if there are several, else []."""
    roots = [root for root, files in archives(context.tables).items() if files]
    if len(roots) > 1 and (matching := condition("images", asked)):
        rows = f"select distinct source_root from images where {matching} order by all"
        roots = query(context.tables, rows, view_shown(context.tables, asked.view))["source_root"].to_pylist()
    return roots if len(roots) > 1 else []


def _written(context: Context, body: ExportBody, name: str, record: str) -> tuple[IO[bytes], int]:
    """Write an export; return it as an open file without a name, which ends with the response, and its size."""
    view = view_shown(context.tables, body.filter.view)
    folder = Path(tempfile.mkdtemp(prefix="resight-export-"))
    try:
        file = folder / name
        if body.relation:
            where = condition(body.relation, body.filter)
            asked = body.narrowed_by
            export(context.tables, body.relation, file, view, MEMORY_MIB, where, name=record, narrowed_by=asked)
        else:
            _write_format(context, body, view, file, record)
        return file.open("rb"), file.stat().st_size
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_format(context: Context, body: ExportBody, view: View | None, file: Path, record: str) -> None:
    """Write the images in the format of another tool; a folder becomes a ZIP file. Raises as `export_file`."""
    fmt, options = FORMATS[body.format], dict(body.options)
    if fmt.has_links:
        raise BadRequest(f"{fmt.name} links to images of this machine: use resight export {fmt.name} FOLDER there")
    if (package := options.get("package")) is not None:
        options["package"] = file.with_name("package.json")
        options["package"].write_text(json.dumps(package), encoding="utf-8")
    out = file.with_suffix("") if fmt.is_folder else file
    export_file(
        context.tables,
        fmt,
        out,
        view,
        files=_files(context, body, view),
        floor=body.floor,
        labels=labels_of(context.store, view) if view else (),
        options=options,
        memory_mib=MEMORY_MIB,
        name=record,
        narrowed_by=body.narrowed_by,
    )
    if fmt.is_folder:
        try:
            shutil.make_archive(str(out), "zip", out)
        except OSError as error:
            _forget(context, record)
            raise storage_error(f"write {file.name}", error) from error


def _files(context: Context, body: ExportBody, view: View | None) -> pa.Table | None:
    """Return source_root and path of the matching images, those of the catalogue without a filter; None: all.

    Raises BadRequest if there is none.
    """
    matching = condition("images", body.filter)
    rows = f"images where {matching}" if matching else f"media where {PRESENT}"
    if body.folder:
        rows += f" and source_root = {literal(body.folder)}"
    if not (matching or body.folder):
        return None
    files = query(context.tables, f"select source_root, path from {rows}", view)
    if not len(files) and body.folder:
        raise BadRequest(f"no image of the archive {body.folder} matches the filter: choose another archive")
    if not len(files):
        raise BadRequest("no image matches the filter: change it")
    return files


def _forget(context: Context, record: str) -> None:
    """Remove the record of an export that was not received, so that it keeps no results."""
    for row in query(context.tables, f"from exports where file = {literal(record)}").to_pylist():
        remove_record(context.tables, row)
