"""Read request bodies within limits, and describe bodies and errors for OpenAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import pydantic_core
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from model_store.errors import BadRequest, ImageTooLarge, TooSlow
from serve.inference.admission import SMALL_BODIES, Room

MIB = 1024 * 1024
SMALL_BYTES, SMALL_S = 64 * 1024, 30.0
IMAGE: dict[str, Any] = {"type": "string", "format": "binary"}
FORM_OF_IMAGES: dict[str, Any] = {
    "type": "object",
    "description": "files under any field names; the results have the same order",
    "properties": {"image": {"type": "array", "items": IMAGE, "minItems": 1, "maxItems": 32}},
    "required": ["image"],
    "additionalProperties": IMAGE,
}
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{
                kind: {"schema": IMAGE} for kind in ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp")
            },
            "multipart/form-data": {"schema": FORM_OF_IMAGES},
        },
    }
}
PROBLEM: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/Problem"}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": PROBLEM}}
    for status, text in {
        400: "the image is damaged, or a parameter is invalid",
        401: "a bearer token is required",
        403: "the token lacks the required scope",
        404: "unknown model; the detail lists what exists",
        408: "the body did not arrive in time",
        409: "the request conflicts with what serves now",
        413: "too many bytes or pixels",
        415: "not an image format that Resight decodes",
        429: "the queue is full, see Retry-After",
        503: "a model, a store or the token file is unavailable; with Retry-After, send it again",
        504: "the deadline passed while the request was queued",
    }.items()
}
FULL: dict[int | str, dict[str, Any]] = {
    507: {
        "description": "the disk for uploads is almost full; the image was not stored",
        "content": PROBLEMS[503]["content"],
    }
}


async def read_body(request: Request, limit_mib: int, within_s: float) -> bytes:
    """Return the raw body. Raises BadRequest if it is multipart or empty, ImageTooLarge over the limit, TooSlow."""
    if media_type(request).startswith("multipart/"):
        raise BadRequest(
            "send the image itself as the body, curl --data-binary @image.jpg, or several as "
            "multipart/form-data, curl --form image=@a.jpg --form image=@b.jpg"
        )
    body = await read_whole(request, limit_mib, within_s)
    if not body:
        raise BadRequest("the body is empty: send the image itself, curl --data-binary @image.jpg")
    return body


async def read_whole(request: Request, limit_mib: int, within_s: float) -> bytes:
    """Return a body of any media type, which may be empty. Raises ImageTooLarge over the limit, TooSlow."""
    too_large = ImageTooLarge(f"the body is over the limit of {limit_mib} MiB")
    return b"".join([p async for p in received(request, within_s, limit_mib * MIB, too_large)])


async def received(request: Request, within_s: float, max_bytes: int, too_large: Exception) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises `too_large` at the limit, and TooSlow: a slow sender cannot keep a place."""
    if declared_bytes(request.headers) > max_bytes:
        raise too_large
    parts, size = request.stream(), 0
    ends_s = asyncio.get_running_loop().time() + within_s
    while True:
        try:
            async with asyncio.timeout_at(ends_s):
                part = await anext(parts, None)
        except TimeoutError:
            raise TooSlow(
                f"the body did not arrive within {within_s:.0f} s (limits.body_s): send less at a time"
            ) from None
        if part is None:
            return
        size += len(part)
        if size > max_bytes:
            raise too_large
        yield part


def declared_bytes(headers: Mapping[str, str]) -> int:
    """Return Content-Length; 0 if it is missing or invalid."""
    text = headers.get("content-length", "")
    return int(text[:18]) if text.isdecimal() else 0  # 18 digits exceed any limit


def media_type(request: Request) -> str:
    """Return the media type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class SmallBodyRoute(APIRoute):
    """Route with a body that FastAPI reads: its size, its time and the number of waiting requests are bounded."""

    max_bytes = SMALL_BYTES

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        room = Room(SMALL_BODIES, "bodies are being read")

        async def answer(request: Request) -> Response:
            small = _SmallBody(request, self.max_bytes)
            with room.place():
                await small.body()
            return await handle(small)

        return answer


class _SmallBody(Request):
    def __init__(self, request: Request, max_bytes: int) -> None:
        super().__init__(request.scope, request.receive)
        self._max_bytes = max_bytes

    async def body(self) -> bytes:
        """Return the body, read once. Raises TooSlow, and HTTPException for a body that is too large."""
        if not hasattr(self, "_body"):
            detail = f"the body is over the limit of {self._max_bytes >> 10} KiB"
            parts = received(self, SMALL_S, self._max_bytes, HTTPException(413, detail))
            self._body = b"".join([part async for part in parts])
        return self._body

    async def json(self) -> Any:
        """Parse the body. Raises HTTPException also for lone surrogates and excessive nesting, unlike `json`."""
        try:
            return pydantic_core.from_json(await self.body())
        except ValueError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error
