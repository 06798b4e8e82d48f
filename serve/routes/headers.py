"""What a request says in its headers: its name, and how long its sender will wait."""

from __future__ import annotations

import re
import secrets
import time

from fastapi import Request

from model_store.errors import BadRequest

REQUEST_ID, TIMEOUT = "x-request-id", "x-request-timeout-ms"
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_MILLISECONDS = re.compile(r"[0-9]{1,9}")
LONGEST_MS = 600_000


def request_id_of(request: Request) -> str:
    """The sender's own, if it is printable and short; else a new one. It is in the log and in the answer."""
    given = request.headers.get(REQUEST_ID, "")
    return given if _ID.fullmatch(given) else secrets.token_hex(8)


def deadline_of(request: Request) -> float | None:
    """On time.perf_counter's clock, or None without the header. Raises BadRequest."""
    text = request.headers.get(TIMEOUT)
    if text is None:
        return None
    if not _MILLISECONDS.fullmatch(text) or not 0 < int(text) <= LONGEST_MS:
        raise BadRequest(f"{TIMEOUT} must be whole milliseconds from 1 to {LONGEST_MS}")
    return time.perf_counter() + int(text) / 1e3
