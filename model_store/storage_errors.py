"""Convert errors of disks, fsspec, s3fs and botocore to Resight's: what failed, where, and the way out.

Libraries are recognised by the names of their errors, so that none is imported.
"""

from __future__ import annotations

import errno
import os
import re
from http import HTTPStatus
from typing import Any, cast

from model_store.errors import StorageError, StorageFull, StorageUnreachable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = tuple(os.strerror(number) for number in _FULL)
_COLOURS_AND_ARROWS = re.compile(r"\x1b\[[0-9;]*m|↳")


def storage_error(attempt: str, error: Exception) -> StorageError:
    """Return StorageFull or StorageUnreachable for an attempt, such as "read s3://bucket/file", that failed."""
    kind = StorageFull if is_full(error) else StorageUnreachable
    way_out = _way_out(error)
    return kind(f"cannot {attempt}: {in_one_line(error)}{way_out and '; '}{way_out}")


def in_one_line(error: Exception) -> str:
    """Return the message of an error; delta-rs formats its own as a coloured tree of several lines."""
    return " ".join(_COLOURS_AND_ARROWS.sub("", str(error)).split())


def is_full(error: Exception) -> bool:
    """Return whether a disk or store has no space left; delta-rs reports it only in its message."""
    number = getattr(error, "errno", None)
    if number in _FULL or http_status(error) == HTTPStatus.INSUFFICIENT_STORAGE:
        return True
    return any(text in str(error) for text in _FULL_TEXTS)


def is_without_bucket(error: BaseException) -> bool:
    """Return whether S3 responded that the bucket does not exist; s3fs raises the same error for a missing file."""
    return _response(error).get("Error", {}).get("Code") == "NoSuchBucket"


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status of the response that s3fs raised as OSError, None for other errors."""
    return _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")


def _way_out(error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if is_full(error):
        return "free some space there, or use another place"
    if is_without_bucket(error):
        return "create the bucket, or correct the URL"
    if getattr(error, "errno", None) == errno.EROFS:
        return "use a place that can be written to"
    if "PermissionError" in kinds:
        return "check owner and mode of the file and its folder, or for S3 the credentials and the policy"
    if "NoCredentialsError" in kinds:
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if kinds & {"ConnectionError", "HTTPClientError"} or "error sending request" in str(error):
        # of Python, botocore or delta-rs
        return "check that the server is running and that AWS_ENDPOINT_URL is its address"
    return ""


def _response(error: BaseException) -> dict[str, Any]:
    """Return the response in the error of botocore that s3fs translated to an OSError, empty for other errors."""
    response = getattr(error.__cause__, "response", None)
    return cast("dict[str, Any]", response) if isinstance(response, dict) else {}
