"""All deliberate errors of Resight; `serve/api/problems.py` and `batch/jobs/exit_codes.py` map them, by their bases.

Each is raised with one message, and can be pickled, since errors cross process borders.
`error_text` formats errors of other libraries for such a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from textwrap import shorten

MOST_CHARS = 400
SOON_S = 1.0
"""Seconds after which a state that ends by itself may have ended."""


class ResightError(Exception):
    """Base of all deliberate errors. The message describes what is wrong, where, and what to do.

    `retry_after_s` is the time to wait before a retry; None if the error stays until a person does something.
    `fields` are the messages about single fields of a request, by their names.
    """

    retry_after_s: float | None = None

    def __init__(
        self, message: str = "", retry_after_s: float | None = None, fields: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
        self.fields = dict(fields or {})


class ImageError(ResightError):
    """One image is invalid. `code` is the `error_code` of its row in `results`."""

    code = "decode"


class ImageUnsupported(ImageError):
    """The file is not a JPEG, PNG, WebP, TIFF or BMP."""

    code = "unsupported"


class ImageUnreadable(ImageError):
    """A supported file type, but its pixels cannot be decoded."""

    code = "decode"


class ImageTooLarge(ImageError):
    """More bytes or pixels than the limit."""

    code = "too_large"


class ModelError(ResightError):
    pass


class ModelNotFound(ModelError):
    """Unknown name, version or alias; the message lists what exists."""


class ModelExists(ModelError):
    """Versions are write-once."""


class ModelRefused(ModelError):
    """Config or weights contradict each other, or are ambiguous."""


class DigestMismatch(ModelError):
    """A file's sha256 differs from READY."""


class ProbeFailed(ModelError):
    """The model does not reproduce its golden probe."""


class ModelNotReady(ModelError):
    """The model exists, but no replica can currently serve it."""


class RequestError(ResightError):
    pass


class BadRequest(RequestError):
    """Invalid parameter or body."""


class InvalidPolicy(BadRequest):
    """The policy file is invalid: an input of a command, but not of an HTTP request."""


class Unauthorized(RequestError):
    """A bearer token is configured and was not sent."""


class Forbidden(RequestError):
    """The token lacks the required scope."""


class Conflict(RequestError):
    """The request contradicts the current state."""


class DeadlinePassed(RequestError):
    """The caller's deadline passed before the request was processed."""


class TooSlow(RequestError):
    """The body did not arrive in time."""


class Overloaded(RequestError):
    """The queue is full."""

    retry_after_s: float | None = SOON_S


class QuotaSpent(Overloaded):
    """The token has stored as many bytes as it may on this day."""


class StorageError(ResightError):
    pass


class StorageFull(StorageError):
    """A disk is full, or has less free space than is reserved for tables and logs."""


class StorageUnreachable(StorageError):
    """A folder or bucket cannot be listed, read or written."""


class IndexNotReady(StorageError):
    """The index of images is being built; until then the page has no lists."""

    retry_after_s: float | None = SOON_S


class StorageUnsafe(StorageError):
    """A store that overwrites instead of creating, or a file outside its folder."""


class TableConflict(StorageError):
    """A commit was rejected too often because of other writers."""


class RunError(ResightError):
    pass


class AccountingOpen(RunError):
    """Requested != ok + empty + failed + reused."""


class NothingWorked(RunError):
    """Every image of the run failed."""


class TooManyFailed(RunError):
    """A run was stopped because too large a share of its images failed."""


class RunStalled(RunError):
    """A run got no result for too long."""


class ProcessKilled(RunError):
    """Processes of a run without a cluster were killed too often."""


class GateClosed(RunError):
    """A publication was rejected by the policy's gates."""


class ObjectiveMissed(RunError):
    """All measured settings are too slow."""


class LineageMismatch(RunError):
    """A replica answered with a different model than the run has pinned."""


class ClusterError(ResightError):
    """Ray could not be started, found or stopped."""


def error_text(error: BaseException, most: int = MOST_CHARS) -> str:
    """Return an error's message, or its class name if it has none, without memory addresses, which vary."""
    words = re.sub(r"( object)? at 0x[0-9a-fA-F]+", "", str(error)) or type(error).__name__
    return shorten(words, most, placeholder=" …")
