"""Each file of a form answered by itself, as soon as it is here, while the next ones arrive.

request, answer(bytes) -> Done(name, status, answer or problem), …, in the order of the form
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from fastapi import Request

from model_store.errors import ResightError
from model_store.names import MAX_QUOTED
from serve.contract import Problem
from serve.engine import Engine
from serve.problems import of_error, problem
from serve.routes.multipart import FormFile, files_of

A = TypeVar("A")
log = structlog.get_logger("resight.serve")


@dataclass(frozen=True, slots=True)
class Done(Generic[A]):
    """One of answer and problem is None; `status` is the HTTP status it would have alone."""

    name: str
    status: int
    answer: A | None = None
    problem: Problem | None = None


async def each_file(
    engine: Engine, request: Request, answer: Callable[[bytes], Awaitable[A]]
) -> list[Done[A]]:
    """Answer the files of a form, each as soon as it is complete.

    Raises BadRequest, ImageTooLarge and TooSlow for the form, and Overloaded if too many are being read; what is
    wrong with a file is its own result.
    """

    async def done(file: FormFile) -> Done[A]:
        try:
            found = await answer(file.take())
        except ResightError as error:
            wrong = of_error(error)
        except Exception as error:
            log.exception("form_file_failed", name=file.name[:MAX_QUOTED])
            wrong = problem(500, "InternalError", f"{type(error).__name__}; see the replica's log")
        else:
            return Done(file.name, 200, answer=found)
        told = Problem.model_validate_json(bytes(wrong.body))
        return Done(file.name, wrong.status_code, problem=told)

    results: list[asyncio.Task[Done[A]]] = []
    try:
        with (
            engine.counted(),
            engine.forms.place(),
        ):  # its files hold theirs only from when they begin
            async for file in files_of(request, engine.args.limits, engine.slot):
                results.append(asyncio.create_task(done(file)))
                results[-1].add_done_callback(lambda _, file=file: file.slot.close())
        return await asyncio.gather(*results)
    finally:
        for task in results:
            task.cancel()
        await asyncio.gather(*results, return_exceptions=True)
