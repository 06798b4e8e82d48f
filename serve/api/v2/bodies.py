"""Read and compress the bodies of /v2, within limits.

Requests: Content-Encoding gzip or deflate (zlib). Responses: Accept-Encoding. Limits apply to decompressed bytes too.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fastapi import Request

from model_store.errors import BadRequest, ImageTooLarge
from serve.api.bodies import MIB, read_whole
from serve.api.v2.json_process import JsonProcess
from serve.inference.admission import Threads

WINDOW = {"gzip": 31, "deflate": 15}
"""zlib's `wbits` of each coding."""
INLINE_BYTES = 64 * 1024
"""Smaller inputs are processed on the event loop: a thread would cost more than the work."""
LOOKED_THROUGH = 1 / 64
"""Cost of a byte of a binary tensor, relative to a byte of JSON or of a compressed body."""
LARGE_BYTES = 256 * 1024
"""Larger JSON is parsed and written in another process, one body at a time: in a thread, each call of the parser would
keep the event loop waiting for the interpreter.
"""
_MAX_CALLS = 1024
"""Above the number of calls that all places can make: more can only come from cancelled requests in a busy thread."""
_SHARED = Threads(2, "tensors wait to be read or written", _MAX_CALLS)
_ONE_AT_A_TIME = Threads(1, "large bodies of JSON wait", _MAX_CALLS)
_PROCESS = JsonProcess()

P = ParamSpec("P")
R = TypeVar("R")


async def off_loop(size_bytes: float, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return `work(…)`, run in a thread if the input is large. Raises the errors of `work`, and Overloaded."""
    if size_bytes < INLINE_BYTES:
        return work(*args, **kwargs)
    return await _SHARED.run(work, *args, **kwargs)


async def with_json(size_bytes: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `work` like `off_loop`; for large JSON in another process, one call at a time.

    `work` must be importable by its name. A call that has begun is always completed.
    """
    if size_bytes <= LARGE_BYTES:
        return await off_loop(size_bytes, work, *args, **kwargs)
    return await _ONE_AT_A_TIME.run(_PROCESS.call, work, *args, **kwargs)


async def read_body(request: Request, limit_mib: int, within_s: float) -> bytes:
    """Return the decompressed body, which may be empty. Raises ImageTooLarge over the limit, TooSlow, BadRequest."""
    body = await read_whole(request, limit_mib, within_s)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding == "identity":
        return body
    if coding not in WINDOW:
        raise BadRequest(f"Content-Encoding '{coding}' is unknown; use gzip or deflate")
    # in a thread for any body: the work depends on the decompressed size, up to the limit
    return await _SHARED.run(inflated, body, coding, limit_mib * MIB)


def inflated(body: bytes, coding: str, limit: int) -> bytes:
    """Decompress a body. Raises BadRequest, and ImageTooLarge if it has more than `limit` bytes."""
    stream = zlib.decompressobj(WINDOW[coding])
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is not {coding}: {error}") from error
    if len(plain) > limit:
        raise ImageTooLarge(f"the {coding} body holds more than the limit of {limit >> 20} MiB")
    if not stream.eof or stream.unused_data:
        raise BadRequest(f"the {coding} body is truncated, or data follows it")
    return plain


def deflated(plain: bytes, coding: str) -> bytes:
    return zlib.compress(plain, wbits=WINDOW[coding])


def accepted_coding(accept_encoding: str) -> str | None:
    """Return the coding to use for an Accept-Encoding header, gzip first; None if it accepts neither."""
    named = (part.partition(";") for part in "".join(accept_encoding.lower().split()).split(","))
    accepted = {name for name, _, options in named if not re.search(r"(^|;)q=0?\.?0*(;|$)", options)}
    return next((coding for coding in WINDOW if coding in accepted), None)
