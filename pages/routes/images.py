"""Images and events: lists by keyset pages, counts, histograms and details as JSON; their pages as HTML."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import Field, model_validator

from archive.catalogue.local_time import LocalTime, end_in_words
from archive.views.image_detail import ImageDetail, image_details
from archive.views.image_events import Event, EventPage, disagreeing, events
from archive.views.image_filter import ImageFilter, ViewName
from archive.views.image_index import By, ImagePage, IndexState
from archive.views.publications import view_of_run
from archive.views.search import view_shown
from archive.views.views import PRODUCTION, Views
from batch.runs import listing
from model_store.errors import DeadlinePassed, ModelError, ModelNotFound, StorageError
from model_store.frozen import Frozen
from model_store.names import version_id
from pages.context import Context
from pages.html import page
from pages.pictures import Lookup

MAX_LIMIT, MAX_RUNS = 500, 50
READERS = 4
"""Threads that read details of other versions than the published one; further requests wait."""
RunId = Annotated[str | None, Query(description="show the results of this run instead of the view's")]


class RankedQuery(ImageFilter):
    limit: int = Field(default=100, ge=1, le=MAX_LIMIT)


class ImagesQuery(RankedQuery):
    """A filter, and where the page starts: after or before a cursor, or at a date."""

    after: str = Field(default="", description="`next` of a page")
    before: str = Field(default="", description="`previous` of a page")
    at: LocalTime | None = Field(
        default=None, description="local camera time: start with the newest image not after it"
    )


class DisagreementQuery(RankedQuery):
    run: str = Field(description="a run that is compared with the view")


class EventsQuery(RankedQuery):
    after: str = Field(default="", description="`next` of a page")


class FormFilter(ImageFilter):
    """A filter as an HTML form sends it, with "" for unset fields; also the other values in the URL of a page.

    The boxes of run `shown` replace those of the view; those of run `run` are compared with them.
    """

    at: str = ""
    shown: str = ""
    run: str = ""
    order: Literal["", "uncertain", "disagreement"] = ""
    crops: bool = False

    @property
    def first(self) -> str:
        """The text of `since`: a day, unless it has a time."""
        return self.since.isoformat().removesuffix("T00:00:00") if self.since else ""

    @property
    def last(self) -> str:
        return end_in_words(self.until) if self.until else ""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}


class HistogramQuery(ImageFilter):
    by: By = "day"


class Count(IndexState):
    """Number of images that match a filter, in this version of the index."""

    count: int


class Neighbours(Frozen):
    """The matching images before and after one, which need not match itself."""

    previous: str | None
    next: str | None


class Bar(Frozen):
    value: str
    images: int


def router(context: Context) -> APIRouter:
    routes, index = APIRouter(), context.index
    readers = ThreadPoolExecutor(READERS, "details")
    published = Lookup(partial(_details, context, PRODUCTION))

    async def detail_of(media_sha256: str, view: str, run: str | None = None) -> ImageDetail:
        if run is None and view == PRODUCTION:  # browsers of reviewers request several at once
            found = await published.get(media_sha256)
        else:
            read = partial(_details, context, view, [media_sha256], run)
            of_version = await asyncio.get_running_loop().run_in_executor(readers, read)
            found = of_version.get(media_sha256)
        if found is None:
            raise ModelNotFound(f"no image has the digest {media_sha256[:80]}")
        return found

    @routes.get("/v1/images")
    def images(wanted: Annotated[ImagesQuery, Query()]) -> ImagePage:
        return index.page(wanted, wanted.limit, after=wanted.after, before=wanted.before, at=wanted.at)

    @routes.get("/v1/images/count")
    def count(wanted: Annotated[ImageFilter, Query()]) -> Count:
        state = index.state(wanted.view)
        return Count(count=index.count(wanted), **state.model_dump())

    @routes.get("/v1/images/histogram")
    def histogram(wanted: Annotated[HistogramQuery, Query()]) -> list[Bar]:
        return [Bar(value=value, images=images) for value, images in index.histogram(wanted, wanted.by)]

    @routes.get("/v1/images/uncertain")
    def uncertain(wanted: Annotated[RankedQuery, Query()]) -> list[str]:
        """Return the digests of the images with the score nearest to 0.5, these first."""
        return index.uncertain(wanted, wanted.limit)

    @routes.get("/v1/images/disagreement")
    async def disagreement(wanted: Annotated[DisagreementQuery, Query()]) -> list[str]:
        """Return the digests of the images, those with the most labels that only the view or the run shows first."""

        def read() -> list[str]:
            second = view_of_run(context.tables, wanted.run)
            return disagreeing(index, context.tables, wanted, second, wanted.limit)

        return await asyncio.get_running_loop().run_in_executor(readers, read)

    @routes.get("/v1/images/{media_sha256}/neighbours")
    def neighbours(media_sha256: str, wanted: Annotated[ImageFilter, Query()]) -> Neighbours:
        previous, following = index.neighbours(wanted, media_sha256)
        return Neighbours(previous=previous, next=following)

    @routes.get("/v1/images/{media_sha256}")
    async def detail(media_sha256: str, view: ViewName = PRODUCTION, run: RunId = None) -> ImageDetail:
        return await detail_of(media_sha256, view, run)

    @routes.get("/v1/events")
    def all_events(wanted: Annotated[EventsQuery, Query()]) -> EventPage:
        """Return the events with a matching image, the latest first."""
        return events(index, wanted, wanted.limit, wanted.after)

    @routes.get("/v1/events/{event_id}")
    def one_event(event_id: str, view: ViewName = PRODUCTION) -> Event:
        found = events(index, ImageFilter(event_id=event_id, view=view), 1).events
        if not found:
            raise ModelNotFound(f"no image of view {view} is in an event {event_id[:80]}")
        return found[0]

    @routes.get("/images", include_in_schema=False)
    def grid(request: Request, wanted: Annotated[FormFilter, Query()]) -> HTMLResponse:
        return page(request, "images.html", wanted=wanted, event=None, **context.filter_choices(wanted))

    @routes.get("/events/{event_id}", include_in_schema=False)
    def event(request: Request, event_id: str, wanted: Annotated[FormFilter, Query()]) -> HTMLResponse:
        found = one_event(event_id, wanted.view)
        return page(request, "images.html", wanted=wanted, event=found)

    @routes.get("/images/{media_sha256}", include_in_schema=False)
    async def image(request: Request, media_sha256: str, wanted: Annotated[FormFilter, Query()]) -> HTMLResponse:
        await detail_of(media_sha256, wanted.view)  # raises for an unknown image
        choices = await asyncio.get_running_loop().run_in_executor(readers, runs)
        views = await asyncio.get_running_loop().run_in_executor(readers, Views(context.tables.url).names)
        more = {"media_sha256": media_sha256, "wanted": wanted, "review": False}
        return page(request, "viewer.html", views=views, runs=choices, **more)

    @routes.get("/review", include_in_schema=False)
    def review(request: Request, wanted: Annotated[FormFilter, Query()]) -> HTMLResponse:
        more = {"media_sha256": "", "wanted": wanted, "review": True, "runs": runs()}
        return page(request, "viewer.html", **more, **context.filter_choices(wanted))

    def runs() -> list[tuple[str, str]]:
        """Return the newest detection runs with their words."""
        newest = (run for run in listing.page(context.tables, MAX_RUNS, kind="detect") if run["inference_key"])
        words = "{model_name}@{model_version}, {started_at:%Y-%m-%d %H:%M}"
        return [(run["run_id"], words.format_map(run)) for run in newest]

    return routes


def _details(context: Context, view: str, digests: Sequence[str], run: str | None = None) -> Mapping[str, ImageDetail]:
    """Return images from the index; from the tables those of a run, and those with rows that the index lacks."""
    if run is not None:
        shown = view_of_run(context.tables, run)
        with suppress(ModelError):  # of a model that is not here, every score is shown
            version = context.store.describe(version_id(shown.model_name, shown.model_version))
            limits = version.detector_config.thresholds
            update = {"threshold": limits.default, "label_thresholds": limits.per_label}
            shown = shown.model_copy(update=update)
        return image_details(context.tables, digests, shown)
    try:
        found = context.index.details(view, digests)
    except (StorageError, DeadlinePassed):  # it is being built, or its disk is full
        found = dict[str, ImageDetail]()
    late = [digest for digest in digests if digest not in found]
    if late:
        found |= image_details(context.tables, late, view_shown(context.tables, view))
    return found
