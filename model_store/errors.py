"""Every error Resight raises on purpose, in one tree; `serve/problems.py` maps it to HTTP.

ResightError
|-- ImageError                 one image is at fault: a `failed` row, or a 4xx answer
|   |-- ImageUnsupported       not a JPEG, PNG, WebP, TIFF or BMP
|   |-- ImageUnreadable        right kind of file, but its pixels cannot be had
|   `-- ImageTooLarge          more bytes or pixels than the limit
|-- ModelError
|   |-- ModelNotFound          no such name, version or alias; the message lists what exists
|   |-- ModelExists            versions are write-once
|   |-- ModelRefused           config or weights contradict each other, or are ambiguous
|   |-- DigestMismatch         a file is not what READY says
|   |-- ProbeFailed            the model does not reproduce its golden probe
|   `-- ModelNotReady          it exists, but no replica can answer with it now
|-- RequestError
|   |-- BadRequest             a parameter or body that cannot be understood
|   |-- Unauthorized           a bearer token is configured and was not sent
|   |-- Forbidden              the token sent has not the scope for it
|   |-- Conflict               it contradicts what serves now
|   |-- DeadlinePassed         the caller's own deadline came before its turn
|   |-- TooSlow                the body did not arrive in time
|   `-- Overloaded             queue full; carries retry_after_s
|-- StorageError
|   |-- StorageFull            a disk has less free space than is kept for tables and logs
|   |-- StorageUnreachable     a folder or bucket cannot be listed or read
|   |-- StorageUnsafe          a store that overwrites where it was told to create, or a file that leads elsewhere
|   `-- TableConflict          a commit kept losing against other writers
|-- RunError
|   |-- AccountingOpen         requested != ok + empty + failed + reused
|   |-- NothingWorked          every image of the run failed
|   |-- TooManyFailed          a run was stopped because too large a share of its images failed
|   |-- RunStalled             nothing came back for too long
|   |-- GateClosed             a publication that the policy's gates do not allow
|   |-- ObjectiveMissed        no setting that was measured is fast enough
|   `-- LineageMismatch        a replica answered with another model than the run has pinned
`-- ClusterError               Ray could not be started, found or stopped

All are raised with one message (and picklable, since they cross process borders).
"""

from __future__ import annotations


class ResightError(Exception):
    """Base of all deliberate errors: the message says what, where and the way out."""


class ImageError(ResightError):
    """One image is at fault. `code` is the `error_code` of its row in `results`."""

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
    """The queue is full. `retry_after_s` is when it is worth asking again."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class StorageError(ResightError):
    pass


class StorageFull(StorageError):
    pass


class StorageUnreachable(StorageError):
    pass


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


class GateClosed(RunError):
    pass


class ObjectiveMissed(RunError):
    pass


class LineageMismatch(RunError):
    pass


class ClusterError(ResightError):
    pass
