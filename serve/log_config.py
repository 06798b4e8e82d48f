"""Structured logs: one JSON object per line on standard output, or text on a terminal, in every process of Resight."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog


class _Lossy:
    """A stream that loses what it cannot write, as to a full disk: no request must fail because of its line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_logs(stream: TextIO | None = None) -> None:
    """Log lines with times in UTC to a stream, standard output by default. May be called more than once."""
    for_people = stream is None and sys.stdout.isatty()
    as_json = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    as_text = structlog.dev.ConsoleRenderer(
        colors=False,
        repr_native_str=True,  # a terminal must not interpret what clients choose
        exception_formatter=structlog.dev.plain_traceback,  # without local variables, such as tokens
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([as_text] if for_people else as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Lossy(stream or sys.stdout))),  # a line in one write
        cache_logger_on_first_use=False,
    )
