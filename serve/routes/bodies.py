"""Request bodies, read as far as the limits allow, and what OpenAPI says of them."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from model_store.errors import BadRequest, ImageTooLarge
from serve.contract import Problem

IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp")
        },
    }
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "the image is damaged, or a parameter is wrong",
        401: "a bearer token is needed",
        404: "no such model; lists what exists",
        413: "too many bytes or pixels",
        415: "not an image Resight decodes",
        429: "queue full, see Retry-After",
        503: "the model cannot answer now",
    }.items()
}


async def read_body(request: Request, limit_mib: int) -> bytes:
    """The raw body. Raises ImageTooLarge as soon as it is known, BadRequest for multipart or nothing."""
    limit = limit_mib * 1024 * 1024
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise BadRequest("send the image itself as the body: curl --data-binary @image.jpg")
    too_large = ImageTooLarge(f"the body is over the limit of {limit_mib} MiB")
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    if not size:
        raise BadRequest("the body is empty: send the image itself, curl --data-binary @image.jpg")
    return b"".join(parts)
