"""Request bodies, read as far as the limits allow, and what OpenAPI says of them."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from model_store.errors import BadRequest, ImageTooLarge

MIB = 1024 * 1024
IMAGE: dict[str, Any] = {"type": "string", "format": "binary"}
FORM_OF_IMAGES: dict[str, Any] = {
    "type": "object",
    "description": "files under any field names; the results are in their order",
    "properties": {"image": {"type": "array", "items": IMAGE, "minItems": 1, "maxItems": 32}},
    "required": ["image"],
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
        409: "it contradicts what serves now",
        413: "too many bytes or pixels",
        415: "not an image Resight decodes",
        429: "queue full, see Retry-After",
        503: "the model cannot answer now",
    }.items()
}


async def read_body(request: Request, limit_mib: int) -> bytes:
    """The raw body. Raises ImageTooLarge as soon as it is known, BadRequest for multipart or nothing."""
    if media_type(request).startswith("multipart/"):
        raise BadRequest(
            "send the image itself as the body, curl --data-binary @image.jpg, or several as "
            "multipart/form-data, curl --form image=@a.jpg --form image=@b.jpg"
        )
    too_large = ImageTooLarge(f"the body is over the limit of {limit_mib} MiB")
    if declared_bytes(request) > limit_mib * MIB:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit_mib * MIB:
            raise too_large
        parts.append(part)
    if not size:
        raise BadRequest("the body is empty: send the image itself, curl --data-binary @image.jpg")
    return b"".join(parts)


def declared_bytes(request: Request) -> int:
    """Content-Length; 0 when it does not say."""
    text = request.headers.get("content-length", "")
    return int(text[:18]) if text.isdecimal() else 0  # 18 digits are over any limit already


def media_type(request: Request) -> str:
    """Of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
