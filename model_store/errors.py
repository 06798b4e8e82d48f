"""The tree of all deliberate errors of Resight; `serve/api/problems.py` maps it to HTTP.

ResightError
|-- ImageError                 one image is invalid: a `failed` row, or a 4xx response
|   |-- ImageUnsupported       not a JPEG, PNG, WebP, TIFF or BMP
|   |-- ImageUnreadable        a supported file type, but its pixels cannot be decoded
|   `-- ImageTooLarge          more bytes or pixels than the limit
|-- ModelError
|   |-- ModelNotFound          unknown name, version or alias; the message lists what exists
|   |-- ModelExists            versions are write-once
|   |-- ModelRefused           config or weights contradict each other, or are ambiguous
|   |-- DigestMismatch         a file's sha256 differs from READY
|   |-- ProbeFailed            the model does not reproduce its golden probe
|   `-- ModelNotReady          the model exists, but no replica can currently serve it
|-- RequestError
|   |-- BadRequest             invalid parameter or body
|   |-- Unauthorized           a bearer token is configured and was not sent
|   |-- Forbidden              the token lacks the required scope
|   |-- Conflict               the request contradicts the current state
|   |-- DeadlinePassed         the caller's deadline passed before the request was processed
|   |-- TooSlow                the body did not arrive in time
|   `-- Overloaded             queue full
|-- StorageError
|   |-- StorageFull            a disk is full, or has less free space than is reserved for tables and logs
|   |-- StorageUnreachable     a folder or bucket cannot be listed, read or written
|   |-- IndexNotReady          the index of images is being built; until then the page has no lists
|   |-- StorageUnsafe          a store that overwrites instead of creating, or a file outside its folder
|   `-- TableConflict          a commit was rejected too often because of other writers
|-- RunError
|   |-- AccountingOpen         requested != ok + empty + failed + reused
|   |-- NothingWorked          every image of the run failed
|   |-- TooManyFailed          a run was stopped because too large a share of its images failed
|   |-- RunStalled             no result arrived for too long
|   |-- ProcessKilled          processes of a run without a cluster were killed too often
|   |-- GateClosed             a publication was rejected by the policy's gates
|   |-- ObjectiveMissed        no measured setting is fast enough
|   `-- LineageMismatch        a replica answered with a different model than the run has pinned
`-- ClusterError               Ray could not be started, found or stopped

Each is raised with one message, and can be pickled, since errors cross process borders.
`said` formats errors of other libraries for such a message.
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
    code = "unsupported"


class ImageUnreadable(ImageError):
    code = "decode"


class ImageTooLarge(ImageError):
    code = "too_large"


class ModelError(ResightError):
    pass


class ModelNotFound(ModelError):
    pass


class ModelExists(ModelError):
    pass


class ModelRefused(ModelError):
    pass


class DigestMismatch(ModelError):
    pass


class ProbeFailed(ModelError):
    pass


class ModelNotReady(ModelError):
    pass


class RequestError(ResightError):
    pass


class BadRequest(RequestError):
    pass


class Unauthorized(RequestError):
    pass


class Forbidden(RequestError):
    pass


class Conflict(RequestError):
    pass


class DeadlinePassed(RequestError):
    pass


class TooSlow(RequestError):
    pass


class Overloaded(RequestError):
    """The queue is full."""

    retry_after_s: float | None = SOON_S


class StorageError(ResightError):
    pass


class StorageFull(StorageError):
    pass


class StorageUnreachable(StorageError):
    pass


class IndexNotReady(StorageError):
    retry_after_s: float | None = SOON_S


class StorageUnsafe(StorageError):
    pass


class TableConflict(StorageError):
    pass


class RunError(ResightError):
    pass


class AccountingOpen(RunError):
    pass


class NothingWorked(RunError):
    pass


class TooManyFailed(RunError):
    pass


class RunStalled(RunError):
    pass


class ProcessKilled(RunError):
    pass


class GateClosed(RunError):
    pass


class ObjectiveMissed(RunError):
    pass


class LineageMismatch(RunError):
    pass


class ClusterError(ResightError):
    pass


def said(error: BaseException, most: int = MOST_CHARS) -> str:
    """Return an error's message, or its class name if it has none, without memory addresses, which vary."""
    words = re.sub(r"( object)? at 0x[0-9a-fA-F]+", "", str(error)) or type(error).__name__
    return shorten(words, most, placeholder=" …")
