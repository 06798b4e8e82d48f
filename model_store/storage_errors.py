"""Convert errors of disks, fsspec, s3fs and botocore to Resight's: what failed, where, and the way out.

Libraries are recognised by the names of their errors, so that none is imported.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, cast

from model_store.errors import StorageError, StorageFull, StorageUnreachable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_OF_A_THREAD = re.compile(r'"exception_message": ?"((?:[^"\\]|\\.)*)"')
_COLOURS_AND_ARROWS = re.compile(r"\x1b\[[0-9;]*m|↳")


def storage_error(attempt: str, error: Exception, otherwise: str = "") -> StorageError:
    """Return StorageFull or StorageUnreachable for an attempt, such as "read s3://bucket/file", that failed.

    `otherwise` is the way out for errors without one of their own.
    """
    kind = StorageFull if is_full(error) else StorageUnreachable
    way_out = _way_out(error) or otherwise
    return kind(f"cannot {attempt}: {in_one_line(error)}{way_out and '; '}{way_out}")


def in_one_line(error: Exception) -> str:
    """Return the message of an error; delta-rs formats its own as a coloured tree of several lines.

    DuckDB's quotation of the statement is left out, and so is the JSON around the error of a thread that wrote.
    """
    text = str(error).partition("\n\nLINE ")[0]
    if inner := _OF_A_THREAD.search(text):
        text = inner[1].replace('\\"', '"')
    return " ".join(_COLOURS_AND_ARROWS.sub("", text).split())


def is_full(error: Exception) -> bool:
    """Return whether a disk or store has no space left."""
    return _has_number(error, _FULL) or http_status(error) == HTTPStatus.INSUFFICIENT_STORAGE


def is_denied(error: Exception) -> bool:
    """Return whether a disk cannot be written to by this user."""
    return _has_number(error, _DENIED)


def _has_number(error: Exception, numbers: Sequence[int]) -> bool:
    """Return whether the operating system reported one of these; delta-rs has it only in its message."""
    return getattr(error, "errno", None) in numbers or any(os.strerror(n) in str(error) for n in numbers)


def is_without_bucket(error: BaseException) -> bool:
    """Return whether S3 responded that the bucket does not exist; s3fs raises the same error for a missing file.

    delta-rs has the code only in its message.
    """
    return _response(error).get("Error", {}).get("Code") == "NoSuchBucket" or "<Code>NoSuchBucket<" in str(error)


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status of the response that s3fs raised as OSError, None for other errors."""
    return _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")


def _way_out(error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if is_full(error):
        return "free some space there, or use another place"
    if is_without_bucket(error):
        return "create the bucket, or correct the URL"
    if _has_number(error, (errno.EROFS,)):
        return "use a place that can be written to"
    if "PermissionError" in kinds or is_denied(error):
        return "check owner and mode of the file and its folder, or for S3 the credentials and the policy"
    if "NoCredentialsError" in kinds:
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (docs/operate/storage.md)"
    if kinds & {"ConnectionError", "HTTPClientError"} or "error sending request" in str(error):
        # of Python, botocore or delta-rs
        return "check that the server is running and that AWS_ENDPOINT_URL is its address"
    return ""


def _response(error: BaseException) -> dict[str, Any]:
    """Return the response in the error of botocore that s3fs translated to an OSError, empty for other errors."""
    response = getattr(error.__cause__, "response", None)
    return cast("dict[str, Any]", response) if isinstance(response, dict) else {}
