"""/ui/v1/assertions: human statements in batches, their undo and redo, and the history."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Query, Request
from pydantic import Field, model_validator

from archive.annotations.annotation_file import DIGEST
from archive.annotations.batch_history import BatchPage, history
from archive.annotations.batches import (
    BATCH_ID,
    Action,
    BatchStatement,
    Recorded,
    StatementBatch,
    decided_by_others,
    selected_rows,
)
from archive.defaults import PRODUCTION
from archive.views.image_filter import ImageFilter
from archive.views.search import view_shown
from model_store.errors import BadRequest, Conflict, Forbidden, ResightError
from model_store.frozen import Frozen
from pages.context import Context
from pages.html import identity_of
from pages.statements import StatementWriter
from serve.api.bodies import SmallBodyRoute

MAX_STATEMENTS, MAX_DIGESTS, MAX_UNCONFIRMED = 1_000, 10_000, 10_000
Digest = Annotated[str, Field(pattern=DIGEST)]


class BatchRoute(SmallBodyRoute):
    """Route with a larger body limit: a selection can list 10,000 digests."""

    max_bytes = 2 * 1024 * 1024


class Selection(Frozen):
    """Images that match a filter except `excluded`, or `digests`; what to state about what the view shows in them.

    keep: every detection is right, and images without one are empty. relabel: every detection, or every one that is an
    `of_label`, is a `label`. suppress: the images are empty. Images about which other people have stated something, or
    with `reviewed` false anyone, are left as they are, except with `replaces`. `count` is the number of images that the
    person has confirmed, those included, and `confirmed_count` the same, typed, for more than 10,000.
    """

    filter: ImageFilter | None = None
    digests: tuple[Digest, ...] = Field(default=(), max_length=MAX_DIGESTS)
    excluded: tuple[Digest, ...] = Field(default=(), max_length=MAX_DIGESTS)
    index_version: str | None = None
    count: int | None = None
    confirmed_count: int | None = None
    action: Action
    label: str | None = Field(default=None, max_length=200)
    of_label: str | None = Field(default=None, max_length=200)
    replaces: bool = False
    view: str = Field(default=PRODUCTION, description="the view that `digests` were shown in")

    @property
    def leaves_own(self) -> bool:
        """Return whether it leaves images that its sender has decided; the index may lag behind these decisions."""
        return self.filter is not None and self.filter.reviewed is False

    @model_validator(mode="after")
    def _consistent(self) -> Selection:
        if bool(self.digests) == (self.filter is not None):
            raise ValueError("a selection needs either a filter or digests")
        if self.filter and not self.filter.model_dump(exclude_none=True, exclude={"view"}):
            raise ValueError("a selection needs a filter with a condition, not the whole archive")
        return self


class Sent(Frozen):
    batch_id: str = Field(pattern=BATCH_ID, description="128 random bits of the client")
    sender: str | None = Field(
        default=None, description="name of the person who decided: with another name it is refused"
    )

    def actor(self, request: Request) -> str:
        """Return the name of the sender. Raises Forbidden if another person has decided this."""
        name = identity_of(request).name
        if self.sender not in (None, name):
            raise Forbidden(f"{self.sender} decided this, and you are {name}: sign in as {self.sender}")
        return name


class BatchBody(Sent):
    """A batch of statements, or one about a selection; with `dry_run` the selection is only counted."""

    statements: tuple[BatchStatement, ...] = Field(default=(), max_length=MAX_STATEMENTS)
    selection: Selection | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> BatchBody:
        if bool(self.statements) == (self.selection is not None):
            raise ValueError("a batch needs either statements or a selection")
        if self.dry_run and not self.selection:
            raise ValueError("dry_run needs a selection")
        return self


class OfBatch(Sent):
    of: str = Field(pattern=BATCH_ID, description="the batch to undo, or to repeat")


class Counted(Frozen):
    """Number of images of a selection, in this version of the index; `decided` of them by other people (`by`)."""

    count: int
    index_version: str
    decided: int
    by: tuple[str, ...]


def router(context: Context) -> APIRouter:
    routes = APIRouter(prefix="/v1/assertions", route_class=BatchRoute)
    writers: list[StatementWriter] = []
    # of two large selections, one waits: each may take a gigabyte
    selecting = ThreadPoolExecutor(1, "selections")

    async def add(batch: StatementBatch) -> Recorded:
        if not writers:  # it needs the running event loop
            writers.append(StatementWriter(context.tables))
        answer = await writers[0].add(batch)
        context.follower.used(changed=not batch.statements)
        return answer

    @routes.post("")
    async def record(request: Request, body: BatchBody) -> Recorded | Counted:
        """Record statements of the sender. A batch that is sent again adds nothing and has the same answer."""
        actor, chosen = body.actor(request), body.selection
        if chosen is None:
            return await add(StatementBatch(body.batch_id, actor, body.statements))
        loop = asyncio.get_running_loop()
        counted, rows, why = await loop.run_in_executor(selecting, _selected, context, body, actor)
        if rows is None:
            return counted
        own = chosen.leaves_own
        batch = StatementBatch(body.batch_id, actor, selected=rows, replaces=chosen.replaces, leaves_own=own)
        answer = await add(batch)
        if why and not answer.added:  # it was not recorded by an earlier request
            raise why
        if chosen.replaces:
            return answer
        by = tuple(sorted({*counted.by, *answer.by}))  # before the commit, and by then
        return answer.model_copy(update={"left": counted.decided + answer.left, "by": by})

    @routes.post("/undo")
    async def undo(request: Request, body: OfBatch) -> Recorded:
        """Withdraw each statement of a batch: what stood before stands again, except where others stated more."""
        return await add(StatementBatch(body.batch_id, body.actor(request), of_batch=body.of))

    @routes.post("/redo")
    async def redo(request: Request, body: OfBatch) -> Recorded:
        """Record the statements of a batch, or those that it withdrew, again."""
        actor = body.actor(request)
        return await add(StatementBatch(body.batch_id, actor, of_batch=body.of, repeats=True))

    @routes.get("")
    def batches(
        media: Annotated[str | None, Query(pattern=DIGEST)] = None,
        actor: str | None = None,
        before: Annotated[str, Query(description="`before` of the previous page")] = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> BatchPage:
        """Return batches, newest first: those of a person, or that concern an image."""
        return history(context.tables, actor, media, limit, before)

    return routes


def _selected(context: Context, body: BatchBody, actor: str) -> tuple[Counted, pa.Table | None, ResightError | None]:
    """Return the number of images of a selection, and its statements unless they are only counted.

    If the person has not confirmed these, there are none, and an error.
    """
    chosen, version = body.selection, ""
    assert chosen
    view = chosen.filter.view if chosen.filter else chosen.view
    if chosen.filter is None:
        digests = sorted(set(chosen.digests) - set(chosen.excluded))
        media = pa.table({"media_sha256": pa.array(digests, pa.string())})
    else:
        media = context.index.select(chosen.filter, chosen.excluded)
        version = (media.schema.metadata or {}).get(b"index_version", b"").decode()
    others = decided_by_others(context.tables, media, "" if chosen.leaves_own else actor, body.batch_id)
    by = tuple(sorted(set[str]().union(*others.values())))
    counted = Counted(count=len(media), index_version=version, decided=len(others), by=by)
    if body.dry_run:
        return counted, None, None
    if others and not chosen.replaces:
        media = media.filter(~pc.field("media_sha256").isin(list(others)))
    rows = selected_rows(context.tables, media, chosen.action, chosen.label, view, chosen.of_label)
    shown = view_shown(context.tables, view)  # read after its rows; the index may be of an earlier publication
    why = _not_confirmed(chosen, counted, shown.serial if shown else 0)
    return counted, rows.slice(0, 0) if why else rows, why


def _not_confirmed(chosen: Selection, counted: Counted, serial: int) -> ResightError | None:
    """Return an error if the number of images was not confirmed, or is another one now, or the publication is."""
    if chosen.count is None:
        return BadRequest("a selection needs `count`, the confirmed number of images: see dry_run")
    if chosen.count != counted.count:
        return Conflict(
            f"{counted.count} images match now, and {chosen.count} were confirmed: nothing was recorded. Confirm again"
        )
    if chosen.index_version and chosen.index_version.rpartition(".")[2] != str(serial):
        return Conflict("other results were published since: nothing was recorded. Look again")
    if counted.count > MAX_UNCONFIRMED and chosen.confirmed_count != counted.count:
        return BadRequest(f"the selection has {counted.count} images: repeat this number in `confirmed_count`")
    return None
