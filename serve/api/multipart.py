"""Answer the image of a request, or each file of its multipart/form-data as soon as it is complete, within bounds.

A file takes a place (`admit`) when it begins. A file without a place, or over the limit, is read and discarded, so
that memory is bounded by the number of places times file_mib. The size of the form is bounded as well. Uploads that
wait to be written have a bound of their own (serve/uploads/uploads.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import structlog
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from model_store.errors import BadRequest, ImageTooLarge, ResightError
from model_store.names import MAX_QUOTED
from serve.api.bodies import MIB, media_type, read_body, received
from serve.api.problems import of_error, problem
from serve.api.schemas import Problem
from serve.inference.engine import Engine
from serve.settings import Limits

FORM = "multipart/form-data"
FORM_FILES = 32
FORM_FULL_FILES = 8
"""Maximum number of files in a form, and how many of them may have the maximum size: most photographs are far
smaller."""

Admit = Callable[[], AbstractContextManager[None]]


@dataclass(eq=False)
class FormFile:
    """One file: its bytes, or the error that discarded them. It holds its place until `slot` is closed."""

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
        """Return its bytes, once. Raises the error that it was refused with, and BadRequest if it is empty."""
        if self.error is not None:
            raise self.error
        if not self.size:
            raise BadRequest("the file is empty")
        parts, self.parts = self.parts, []
        return b"".join(parts)


def is_form(request: Request) -> bool:
    return media_type(request) == FORM


async def files_of(request: Request, limits: Limits, admit: Admit) -> AsyncIterator[FormFile]:
    """Yield each file as soon as it is complete; the caller closes its slot.

    Raises BadRequest for an invalid or truncated form, and for one with anything except 1 to FORM_FILES files;
    ImageTooLarge over FORM_FULL_FILES * body_mib; TooSlow. The rest is then not read.
    """
    limit_mib = FORM_FULL_FILES * limits.body_mib
    too_large = ImageTooLarge(f"the form is over the limit of {limit_mib} MiB: send the images in several requests")
    form = _Form(request, limits.body_mib, admit)
    with contextlib.closing(form):
        async for part in received(request, limits.body_s, limit_mib * MIB, too_large):
            for file in form.write(part):
                yield file
        form.end()


class _Form:
    """Callbacks of the parser, which collect the complete files and fill the current one."""

    def __init__(self, request: Request, file_mib: int, admit: Admit) -> None:
        self._file_mib, self._admit = file_mib, admit
        self._name, self._value, self._disposition = b"", b"", b""
        self._count, self._ended = 0, False
        self._file: FormFile | None = None
        self._complete: list[FormFile] = []
        _, options = parse_options_header(request.headers["content-type"])
        try:
            if not options.get(b"boundary"):
                raise FormParserError("no boundary")
            self._parser = MultipartParser(
                options[b"boundary"],
                {
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
                "the content-type of the form lacks a valid boundary; curl --form image=@a.jpg sets it"
            ) from error

    def write(self, part: bytes) -> list[FormFile]:
        """Parse a part of the body; return the files that it completes."""
        try:
            self._parser.write(part)
        except FormParserError as error:
            raise BadRequest(f"the form cannot be read: {error}") from error
        complete, self._complete = self._complete, []
        return complete

    def end(self) -> None:
        """Raise BadRequest if the form is incomplete or has no file."""
        if not self._ended:
            raise BadRequest("the form is truncated: its closing boundary is missing")
        if not self._count:
            raise BadRequest("the form has no file: use curl --form image=@a.jpg --form image=@b.jpg")

    def close(self) -> None:
        """Release the places of files that were not yielded."""
        for file in (*self._complete, self._file):
            if file:
                file.slot.close()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _file_begins(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        name = _text(options.get(b"name", b""))
        if b"filename" not in options:
            raise BadRequest(f"form field {name[:MAX_QUOTED]!r} is not a file; send parameters in the query")
        self._count += 1
        if self._count > FORM_FILES:
            raise BadRequest(f"more than {FORM_FILES} files in a form: send the images in several requests")
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


A = TypeVar("A")
F = TypeVar("F")
Answer = Callable[[bytes], Awaitable[A]]
log = structlog.get_logger("resight.serve")


class FileResult(NamedTuple, Generic[A]):
    """Result of one file: `answer` or `problem` is None; `status` is the HTTP status of this file alone."""

    name: str
    status: int
    answer: A | None = None
    problem: Problem | None = None


async def answer_images(engine: Engine, request: Request, answer: Answer[A], form: Callable[..., F]) -> A | F:
    """Return `answer(…)` of the body, or a `form` of the results of files. Raises as `answer_image` or `each_file`."""
    if not is_form(request):
        return await answer_image(engine, request, answer)
    files = await each_file(engine, request, lambda file: answer(file.take()))
    return form(results=[file._asdict() for file in files])


async def answer_image(engine: Engine, request: Request, answer: Answer[A]) -> A:
    """Return `answer(…)` of the image that is the body. Raises its errors, Overloaded, and those of `read_body`."""
    limits = engine.args.limits
    with engine.admission.images.place():
        with engine.observer.errors():
            body = await read_body(request, limits.body_mib, limits.body_s)
        return await answer(body)


async def each_file(
    engine: Engine, request: Request, answer: Callable[[FormFile], Awaitable[A]]
) -> list[FileResult[A]]:
    """Call `answer` for each file of a form as soon as it is complete; return the results in order.

    Raises BadRequest, ImageTooLarge and TooSlow for the form, and Overloaded if too many are being read. An error of a
    file is the result of that file.
    """

    async def process(file: FormFile) -> FileResult[A]:
        try:
            result = await answer(file)
        except ResightError as error:
            response = of_error(error)
        except Exception as error:
            log.exception("form_file_failed", name=file.name[:MAX_QUOTED])
            response = problem(500, "InternalError", f"{type(error).__name__}; see the replica's log")
        else:
            return FileResult(file.name, 200, answer=result)
        detail = Problem.model_validate_json(bytes(response.body))
        return FileResult(file.name, response.status_code, problem=detail)

    tasks: list[asyncio.Task[FileResult[A]]] = []
    try:
        # a file takes its own place only when it begins
        with engine.observer.errors(), engine.admission.forms.place():
            async for file in files_of(request, engine.args.limits, engine.admission.images.place):
                tasks.append(asyncio.create_task(process(file)))
                tasks[-1].add_done_callback(lambda _, file=file: file.slot.close())
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
