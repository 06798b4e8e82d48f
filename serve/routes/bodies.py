"""Request bodies, read as far as the limits allow, and what OpenAPI says of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pydantic_core
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from model_store.errors import BadRequest, ImageTooLarge, TooSlow
from serve.bounds import SMALL_BODIES, Room

MIB = 1024 * 1024
SMALL_BYTES, SMALL_S = 64 * 1024, 30.0
IMAGE: dict[str, Any] = {"type": "string", "format": "binary"}
FORM_OF_IMAGES: dict[str, Any] = {
    "type": "object",
    "description": "files under any field names; the results are in their order",
    "properties": {"image": {"type": "array", "items": IMAGE, "minItems": 1, "maxItems": 32}},
    "required": ["image"],
    "additionalProperties": IMAGE,
}
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{
                kind: {"schema": IMAGE}
                for kind in ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp")
            },
            "multipart/form-data": {"schema": FORM_OF_IMAGES},
        },
    }
}
PROBLEM: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/Problem"}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": PROBLEM}}
    for status, text in {
        400: "the image is damaged, or a parameter is wrong",
        401: "a bearer token is needed",
        403: "the token has not the scope for it",
        404: "no such model; lists what exists",
        408: "the body did not arrive in time",
        409: "it contradicts what serves now",
        413: "too many bytes or pixels",
        415: "not an image Resight decodes",
        429: "queue full, see Retry-After",
        503: "the model cannot answer now",
        504: "the deadline passed before its turn",
    }.items()
}
FULL: dict[int | str, dict[str, Any]] = {
    507: {
        "description": "the disk of uploads is almost full; the picture was not kept",
        "content": PROBLEMS[503]["content"],
    }
}


async def read_body(request: Request, limit_mib: int, within_s: float) -> bytes:
    """The raw body. Raises ImageTooLarge as soon as it is known, TooSlow, BadRequest for multipart or
    nothing.
    """
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
    """Whatever it is; may be empty. Raises ImageTooLarge as soon as it is known, TooSlow."""
    too_large = ImageTooLarge(f"the body is over the limit of {limit_mib} MiB")
    if declared_bytes(request) > limit_mib * MIB:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for part in received(request, within_s):
        size += len(part)
        if size > limit_mib * MIB:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def received(request: Request, within_s: float) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises TooSlow: nobody keeps a place by a byte now and then."""
    parts = request.stream()
    ends_s = asyncio.get_running_loop().time() + within_s
    while True:
        try:
            async with asyncio.timeout_at(ends_s):
                part = await anext(parts, None)
        except TimeoutError:
            raise TooSlow(
                f"the body was not here within {within_s:.0f} s (limits.body_s): send less at a time"
            ) from None
        if part is None:
            return
        yield part


def declared_bytes(request: Request) -> int:
    """Content-Length; 0 when it does not say."""
    text = request.headers.get("content-length", "")
    return int(text[:18]) if text.isdecimal() else 0  # 18 digits are over any limit already


def media_type(request: Request) -> str:
    """Of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class SmallBodyRoute(APIRoute):
    """A route whose body FastAPI reads itself: bounded in size, time and the number of those that wait."""

    most_bytes = SMALL_BYTES

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        room = Room(SMALL_BODIES, "bodies are being read")

        async def answer(request: Request) -> Response:
            small = _SmallBody(request, self.most_bytes)
            with room.place():
                await small.body()
            return await handle(small)

        return answer


class _SmallBody(Request):
    def __init__(self, request: Request, most_bytes: int) -> None:
        super().__init__(request.scope, request.receive)
        self._most_bytes = most_bytes

    async def body(self) -> bytes:
        """Return the body, read once. Raises TooSlow, and HTTPException for a body that is too large."""
        if not hasattr(self, "_body"):
            parts: list[bytes] = []
            size = 0
            async for part in received(self, SMALL_S):
                size += len(part)
                if size > self._most_bytes:
                    raise HTTPException(
                        413, f"this takes no more than {self._most_bytes >> 10} KiB"
                    )
                parts.append(part)
            self._body = b"".join(parts)
        return self._body

    async def json(self) -> Any:
        """Raise HTTPException also for half a character and endless nesting, which `json` lets through."""
        try:
            return pydantic_core.from_json(await self.body())
        except ValueError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error
