"""GET /ui/v1/images/{digest}/thumbnail, /crop and /original: pictures of an image, turned as it is displayed.

A digest names the same picture for ever, so browsers keep it. While the policy hides labels, they check each use: the
picture may have been hidden since. People without the scope `review` get hidden boxes blurred, or no picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from archive.catalogue.uploads import EXTENSIONS
from batch.schedule.policy import policy_of
from model_store.errors import ModelNotFound
from model_store.images.crops import Box
from model_store.images.header import read_header
from model_store.images.thumbnails import crop, redacted, thumbnail
from pages.context import Context
from pages.html import identity_of
from pages.pictures import Lookup, Row, hidden_boxes, made_of, picture_rows
from serve.auth.scopes import TokenScope

VERSION = 1
"""Raise it if pictures are made differently: those in browsers and in HOME/thumbnails are then made again."""
JPEG = "image/jpeg"
KEEP = "private, max-age=31536000, immutable"
CHECK = "private, no-cache"
"""Kept by browsers, and used after the server confirms it."""
HEADERS = {"Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff"}
SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"


class ThumbnailWidth(IntEnum):
    w160, w320, w640, w1600 = 160, 320, 640, 1600


class CropWidth(IntEnum):
    w224, w448 = 224, 448


Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="sha256 of the image file")]
Side = Annotated[float, Query(ge=0, le=1e6, description="px of the image as displayed")]


def router(context: Context) -> APIRouter:
    routes = APIRouter(prefix="/v1/images/{media_sha256}")
    pictures = Pictures(context)

    @routes.get("/thumbnail", response_class=Response)
    async def thumbnail_of(
        request: Request,
        media_sha256: Digest,
        w: Annotated[ThumbnailWidth, Query(description="width in px")] = ThumbnailWidth.w320,
    ) -> Response:
        """Return the whole image as a JPEG of this width, never enlarged."""
        return await pictures.answer(request, media_sha256, f"t{w}", partial(thumbnail, width_px=w))

    @routes.get("/crop", response_class=Response)
    async def crop_of(
        request: Request,
        media_sha256: Digest,
        x1: Side,
        y1: Side,
        x2: Side,
        y2: Side,
        w: Annotated[CropWidth, Query(description="width in px")] = CropWidth.w224,
    ) -> Response:
        """Return a box with a margin of 30 % as a JPEG of this width, never enlarged."""
        box = (x1, y1, x2, y2)
        return await pictures.answer(request, media_sha256, f"c{w}-{_key(box)}", partial(crop, box_px=box, width_px=w))

    @routes.get("/original", response_class=Response)
    async def original(request: Request, media_sha256: Digest) -> Response:
        """Return the file of the image, or a JPEG of the same size if boxes are hidden in it."""
        return await pictures.original(request, media_sha256)

    return routes


class Pictures:
    """Pictures of the archive for the requests of one process."""

    def __init__(self, context: Context) -> None:
        self._settings, self._cache = context.settings, context.thumbnails
        self._rows = Lookup(partial(picture_rows, context.tables))
        self._hidden = Lookup(lambda digests: hidden_boxes(context.tables, policy_of(self._settings).privacy, digests))

    async def answer(self, request: Request, media_sha256: str, recipe: str, make: Callable[..., bytes]) -> Response:
        """Return a kept picture, or that of `make(bytes of the file, hidden=boxes)`."""
        hidden, headers = await self._hide(request, media_sha256, recipe)
        if _is_current(request, headers):
            return Response(status_code=304, headers=headers)

        async def made() -> bytes:
            row = await self._row(media_sha256)
            return await self._cache.run(lambda: made_of(row, lambda data: make(data, hidden=hidden)))

        name = f"{recipe}-{VERSION}" + (f"-hidden-{_key(*hidden)}" if hidden else "")
        data = await self._cache.get(media_sha256, name, made)
        return Response(data, headers=headers, media_type=JPEG)

    async def original(self, request: Request, media_sha256: str) -> Response:
        """Return the file itself, typed by its header; without the scope `review`, a JPEG without metadata."""
        bare = not _may_review(request)  # EXIF data may contain exact coordinates
        recipe = "original-bare" if bare else "original"
        hidden, headers = await self._hide(request, media_sha256, recipe)
        if bare and not hidden:
            headers["Cache-Control"] = CHECK  # another token of this browser may see the file itself
        if _is_current(request, headers):
            return Response(status_code=304, headers=headers)
        row = await self._row(media_sha256)

        def typed(data: bytes) -> tuple[bytes, str]:
            return (redacted(data, hidden), JPEG) if hidden or bare else (data, read_header(data).media_type)

        async def made() -> tuple[bytes, str]:
            return await self._cache.run(lambda: made_of(row, typed))

        name = f"{media_sha256}-{recipe}-{_key(*hidden)}"
        data, media_type = await self._cache.make(name, made)
        headers |= {"Content-Security-Policy": SANDBOX}
        headers |= {"Content-Disposition": _disposition(str(row["path"]), media_type)}
        return Response(data, headers=headers, media_type=media_type)

    async def _row(self, media_sha256: str) -> Row:
        row = await self._rows.get(media_sha256)
        if row is None:
            raise ModelNotFound(f"no image has the digest {media_sha256}")
        return row

    async def _hide(self, request: Request, media_sha256: str, recipe: str) -> tuple[Sequence[Box], dict[str, str]]:
        """Return the boxes to hide from the sender, and headers. Raises ModelNotFound for a hidden picture."""
        privacy = policy_of(self._settings).privacy
        headers = HEADERS | {"ETag": f'"{media_sha256}-{recipe}-{VERSION}"', "Cache-Control": KEEP}
        if not privacy.hide_labels:
            return (), headers
        headers["Cache-Control"] = CHECK
        if _may_review(request):
            return (), headers
        hidden = await self._hidden.get(media_sha256)
        labels = ", ".join(privacy.hide_labels)
        if hidden is None:
            await self._row(media_sha256)
            raise ModelNotFound(
                f"this picture is hidden until the published model has looked for {labels} in it: "
                "run 'resight reprocess', or use a token with the scope review"
            )
        if hidden and privacy.mode == "hide":
            raise ModelNotFound(
                f"this picture is hidden, because it may show {labels}: use a token with the scope review"
            )
        return hidden, HEADERS | {"Cache-Control": "no-store"} if hidden else headers


def _may_review(request: Request) -> bool:
    return TokenScope.review in identity_of(request).scopes


def _is_current(request: Request, headers: dict[str, str]) -> bool:
    """Return whether the browser has this picture."""
    sent = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return "ETag" in headers and (headers["ETag"] in sent)


def _key(*boxes: Box) -> str:
    return hashlib.sha256(repr(boxes).encode()).hexdigest()[:16]


def _disposition(path: str, media_type: str) -> str:
    """Return Content-Disposition with the file's name, and the extension of its type if it has another."""
    name, extension = PurePosixPath(path).name, EXTENSIONS[media_type]
    same = {".jpeg": ".jpg", ".tiff": ".tif"}
    suffix = PurePosixPath(name).suffix.lower()
    if same.get(suffix, suffix) != extension:
        name += extension
    return f"inline; filename*=UTF-8''{quote(name.encode('utf-8', 'replace'), safe='')}"
