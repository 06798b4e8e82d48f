"""Images: lists by keyset pages, counts, histograms and details as JSON; the grid and the viewer as HTML."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import Field, model_validator

from archive.catalogue.local_time import LocalTime
from archive.views.image_detail import (
    ImageDetail,
    image_detail,
    image_details,
    unknown_image,
)
from archive.views.image_index import ImageFilter
from archive.views.publications import view_named, view_of_run
from archive.views.views import PRODUCTION, View, Views
from model_store.frozen import Frozen
from pages.context import Context
from pages.html import page
from pages.pictures import Lookup

MAX_LIMIT = 500


class ImagesQuery(ImageFilter):
    """A filter, and where the page starts: after or before a cursor, or at a date."""

    limit: int = Field(default=100, ge=1, le=MAX_LIMIT)
    after: str = Field(default="", description="`next` of a page")
    before: str = Field(default="", description="`previous` of a page")
    at: LocalTime | None = Field(
        default=None, description="local camera time: start with the newest image not after it"
    )


class FormFilter(ImageFilter):
    """A filter as an HTML form sends it, with "" for unset fields; also the other values in the URL of a page."""

    at: str = ""
    run: str = ""
    order: Literal["", "uncertain"] = ""
    crops: bool = False

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}


class HistogramQuery(ImageFilter):
    by: Literal["day", "hour", "camera", "label", "status"] = "day"


class Images(Frozen):
    """A page of images as columns, newest first. `previous` and `next` are cursors, "" at the ends."""

    columns: dict[str, list[Any]]
    previous: str
    next: str


class Count(Frozen):
    """Number of images that match a filter, in the index of this version.

    `behind_s` is the age of the oldest change of the tables that the index lacks, 0 without one.
    """

    count: int
    index_version: str
    behind_s: float


class Neighbours(Frozen):
    """The matching images before and after one, which need not match itself."""

    previous: str | None
    next: str | None


class Bar(Frozen):
    value: str
    images: int


def router(context: Context) -> APIRouter:
    routes = APIRouter(prefix="/v1/images")

    @routes.get("")
    def images(wanted: Annotated[ImagesQuery, Query()]) -> Images:
        found = context.index.page(
            filter_of(wanted), wanted.limit, after=wanted.after, before=wanted.before, at=wanted.at
        )
        context.follower.used(wanted.view)  # after the look-up, which raises for an unknown view
        columns = found.rows.to_pydict()
        return Images(columns=columns, previous=found.previous, next=found.next)

    @routes.get("/count")
    def count(wanted: Annotated[ImageFilter, Query()]) -> Count:
        state = context.index.state(wanted.view)
        context.follower.used(wanted.view)
        return Count(
            count=context.index.count(wanted), index_version=state.version, behind_s=state.behind_s
        )

    @routes.get("/histogram")
    def histogram(wanted: Annotated[HistogramQuery, Query()]) -> list[Bar]:
        bars = context.index.histogram(filter_of(wanted), wanted.by)
        context.follower.used(wanted.view)
        return [Bar(value=value, images=images) for value, images in bars]

    @routes.get("/uncertain")
    def uncertain(
        wanted: Annotated[ImageFilter, Query()],
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    ) -> list[str]:
        """Return the digests of the images with the score nearest to 0.5, these first."""
        found = context.index.uncertain(wanted, limit)
        context.follower.used(wanted.view)
        return found

    @routes.get("/{media_sha256}/neighbours")
    def neighbours(media_sha256: str, wanted: Annotated[ImageFilter, Query()]) -> Neighbours:
        previous, following = context.index.neighbours(wanted, media_sha256)
        return Neighbours(previous=previous, next=following)

    published = Lookup(
        lambda digests: image_details(context.tables, digests, Views(context.tables.url).current())
    )

    @routes.get("/{media_sha256}")
    async def detail(
        media_sha256: str,
        view: str = PRODUCTION,
        run: Annotated[
            str | None, Query(description="show the results of this run instead of the view's")
        ] = None,
    ) -> ImageDetail:
        if run is None and view == PRODUCTION:  # browsers of reviewers request several at once
            found = await published.get(media_sha256)
            if found is None:
                raise unknown_image(media_sha256)
            return found

        def read() -> ImageDetail:
            return image_detail(context.tables, media_sha256, view_of(context, view, run))

        return await asyncio.to_thread(read)

    return routes


def html_router(context: Context) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/images")
    def grid(request: Request, wanted: Annotated[FormFilter, Query()]) -> HTMLResponse:
        return page(request, "images.html", wanted=wanted, **choices(wanted))

    @routes.get("/images/{media_sha256}")
    def image(
        request: Request, media_sha256: str, wanted: Annotated[FormFilter, Query()]
    ) -> HTMLResponse:
        shown = image_detail(context.tables, media_sha256, view_of(context, wanted.view))
        return page(request, "viewer.html", image=shown, wanted=wanted, review=False)

    @routes.get("/review")
    def review(request: Request, wanted: Annotated[FormFilter, Query()]) -> HTMLResponse:
        return page(
            request, "viewer.html", image=None, wanted=wanted, review=True, **choices(wanted)
        )

    def choices(wanted: ImageFilter) -> dict[str, Any]:
        """Return the cameras and labels of the view, with their images."""
        everything = ImageFilter(view=wanted.view)
        return {
            "cameras": context.index.histogram(everything, "camera"),
            "labels": context.index.histogram(everything, "label"),
        }

    return routes


def filter_of(wanted: ImageFilter) -> ImageFilter:
    """Return the filter without the place of the page."""
    fields = {name: getattr(wanted, name) for name in ImageFilter.model_fields}
    return ImageFilter(**fields)


def view_of(context: Context, name: str, run: str | None = None) -> View | None:
    """Return a published view, or that of a run. None if nothing is published yet. Raises BadRequest."""
    if run is not None:
        return view_of_run(context.tables, run)
    if name == PRODUCTION:
        return Views(context.tables.url).current()
    return view_named(context.tables, name)
