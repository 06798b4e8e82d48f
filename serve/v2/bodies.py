"""Bodies of /v2 as they travel: bounded, and compressed both ways when asked for.

Content-Encoding gzip or deflate (zlib) in; Accept-Encoding out. Limits hold for the plain bytes too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fastapi import Request

from model_store.errors import BadRequest, ImageTooLarge
from serve.routes.bodies import MIB, read_whole
from serve.threads import Threads

WINDOW = {"gzip": 31, "deflate": 15}
"""zlib's `wbits` of each coding."""
INLINE_BYTES = 64 * 1024
"""Less than this is handled on the event loop: a thread costs more than the work."""
LOOKED_THROUGH = 1 / 64
"""What a byte of a binary tensor costs, of what one of JSON or of a compressed body does."""
LARGE_BYTES = MIB
"""More JSON than this is read alone: as objects it takes many times its size."""
_MOST = 1024
"""Calls of all replicas' places and more: what is over it was cancelled while a thread was busy."""
_BESIDE = Threads(4, "tensors to read or write", _MOST)
_ALONE = Threads(1, "large bodies of JSON", _MOST)

P = ParamSpec("P")
R = TypeVar("R")


async def off_loop(size_bytes: float, work: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
    """Return `work(…)`, from a thread when there is much to do. Raises what it raises, and Overloaded."""
    if size_bytes < INLINE_BYTES:
        return work(*args, **more)
    return await _BESIDE.run(work, *args, **more)


async def in_turn(size_bytes: int, work: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
    """Work like `off_loop`, but do large ones one after the other; one that has begun is ended in any case."""
    if size_bytes <= LARGE_BYTES:
        return await off_loop(size_bytes, work, *args, **more)
    return await _ALONE.run(work, *args, **more)


async def read_body(request: Request, limit_mib: int, within_s: float) -> bytes:
    """The plain body; may be empty. Raises ImageTooLarge as soon as it is known, TooSlow, BadRequest."""
    body = await read_whole(request, limit_mib, within_s)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding == "identity":
        return body
    if coding not in WINDOW:
        raise BadRequest(f"Content-Encoding '{coding}' is unknown; use gzip or deflate")
    # the work is by what comes out, up to the limit, not by what came in
    return await _BESIDE.run(inflated, body, coding, limit_mib * MIB)


def inflated(body: bytes, coding: str, limit: int) -> bytes:
    """Raises BadRequest, and ImageTooLarge when more than `limit` bytes would come out."""
    stream = zlib.decompressobj(WINDOW[coding])
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is not {coding}: {error}") from error
    if len(plain) > limit:
        raise ImageTooLarge(f"the {coding} body holds more than the limit of {limit >> 20} MiB")
    if not stream.eof or stream.unused_data:
        raise BadRequest(f"the {coding} body is cut, or something follows it")
    return plain


def deflated(plain: bytes, coding: str) -> bytes:
    stream = zlib.compressobj(wbits=WINDOW[coding])
    return stream.compress(plain) + stream.flush()


def accepted_coding(accept_encoding: str) -> str | None:
    """Which of ours an Accept-Encoding header asks for, gzip first."""
    offered: set[str] = set()
    for part in accept_encoding.lower().split(","):
        name, *options = (word.strip() for word in part.split(";"))
        if not any(_is_zero(option) for option in options):
            offered.add(name)
    return next((coding for coding in WINDOW if coding in offered), None)


def _is_zero(option: str) -> bool:
    key, _, value = option.partition("=")
    return key.strip() == "q" and value.strip().rstrip("0") in ("", "0.", ".")
