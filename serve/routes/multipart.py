"""multipart/form-data, read as it arrives: the files of a form one by one, within bounds.

request -> files_of -> FormFile(name, parts | error, slot), …, in the order of the form
A file takes its place (`admit`) when it begins; one that gets none, or is too large, is read on and
thrown away, so that memory stays within places times file_mib. The form itself is bounded as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from model_store.errors import BadRequest, ImageTooLarge, ResightError
from model_store.names import MAX_QUOTED
from serve.routes.bodies import MIB, declared_bytes, media_type, received
from serve.settings import Limits

FORM = "multipart/form-data"
FORM_FILES = 32
FORM_FULL_FILES = 8
"""Most files of a form, and how many of them may be as large as a file can be: photographs are mostly
far below that limit."""

Admit = Callable[[], AbstractContextManager[None]]


@dataclass(eq=False)
class FormFile:
    """One file: its bytes, or why they are not kept. It holds its place until `slot` is closed."""

    name: str
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    error: ResightError | None = None
    slot: ExitStack = field(default_factory=ExitStack)

    def refuse(self, error: ResightError) -> None:
        self.error = error
        self.parts.clear()
        self.slot.close()

    def take(self) -> bytes:
        """Its bytes, once. Raises what it was refused with, and BadRequest when there are none."""
        if self.error is not None:
            raise self.error
        if not self.size:
            raise BadRequest("the file is empty")
        parts, self.parts = self.parts, []
        return b"".join(parts)


def is_form(request: Request) -> bool:
    return media_type(request) == FORM


async def files_of(request: Request, limits: Limits, admit: Admit) -> AsyncIterator[FormFile]:
    """Each file as soon as it is complete; the caller closes its slot.

    Raises BadRequest for what is no form, is cut short, or holds anything but 1 to FORM_FILES files,
    ImageTooLarge for FORM_FULL_FILES * body_mib and more, and TooSlow; then the rest is not read.
    """
    limit_mib = FORM_FULL_FILES * limits.body_mib
    too_large = ImageTooLarge(
        f"the form is over the limit of {limit_mib} MiB: send the images in several requests"
    )
    if declared_bytes(request) > limit_mib * MIB:
        raise too_large
    form = _Form(request, limits.body_mib, admit)
    size = 0
    with contextlib.closing(form):
        async for part in received(request, limits.body_s):
            size += len(part)
            if size > limit_mib * MIB:
                raise too_large
            for file in form.write(part):
                yield file
        form.end()


class _Form:
    """The parser's callbacks: they collect the files that are complete, and fill the one that is not."""

    def __init__(self, request: Request, file_mib: int, admit: Admit) -> None:
        self._file_mib = file_mib
        self._admit = admit
        self._header = (b"", b"")
        self._disposition = b""
        self._count = 0
        self._file: FormFile | None = None
        self._complete: list[FormFile] = []
        self._ended = False
        _, options = parse_options_header(request.headers["content-type"])
        try:
            if not options.get(b"boundary"):
                raise FormParserError("no boundary")
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_header_begin": self._header_begins,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._file_begins,
                    "on_part_data": self._file_grows,
                    "on_part_end": self._file_ends,
                    "on_end": self._form_ends,
                },
            )
        except FormParserError as error:
            raise BadRequest(
                "the content-type of a form names its boundary; curl --form image=@a.jpg does it all"
            ) from error

    def write(self, part: bytes) -> list[FormFile]:
        """The files that end in this part of the body."""
        try:
            self._parser.write(part)
        except FormParserError as error:
            raise BadRequest(f"the form cannot be read: {error}") from error
        complete, self._complete = self._complete, []
        return complete

    def end(self) -> None:
        """Raises BadRequest unless this is where a form may end."""
        if not self._ended:
            raise BadRequest("the form is cut short: its closing boundary is missing")
        if not self._count:
            raise BadRequest("the form holds no file: curl --form image=@a.jpg --form image=@b.jpg")

    def close(self) -> None:
        """Give back the places of files that nobody will get."""
        for file in (*self._complete, *([self._file] if self._file else [])):
            file.slot.close()

    def _header_begins(self) -> None:
        self._header = (b"", b"")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        name, value = self._header
        self._header = (name + data[start:end], value)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        name, value = self._header
        self._header = (name, value + data[start:end])

    def _header_ends(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value

    def _file_begins(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        name = _text(options.get(b"name", b""))
        if b"filename" not in options:
            raise BadRequest(
                f"the form's field {name[:MAX_QUOTED]!r} is not a file; model and min_score go into the query"
            )
        self._count += 1
        if self._count > FORM_FILES:
            raise BadRequest(
                f"more than {FORM_FILES} files in a form: send the images in several requests"
            )
        self._file = FormFile(_text(options[b"filename"]) or name)
        try:
            self._file.slot.enter_context(self._admit())
        except ResightError as error:
            self._file.refuse(error)

    def _file_grows(self, data: bytes, start: int, end: int) -> None:
        file = self._file
        if file is None or file.error is not None:
            return
        file.size += end - start
        if file.size > self._file_mib * MIB:
            file.refuse(ImageTooLarge(f"the file is over the limit of {self._file_mib} MiB"))
        else:
            file.parts.append(data[start:end])

    def _file_ends(self) -> None:
        if self._file is not None:
            self._complete.append(self._file)
        self._file = None

    def _form_ends(self) -> None:
        self._ended = True


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
