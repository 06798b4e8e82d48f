"""One archive image to prepared pixels: read, check the digest, decode, fit into the square.

row of a plan --prepare_image--> ReadImage(Prepared | error code and detail, note, size, decode_ms)
A transient read error is tried again; after that it is this image's failure, like any damage.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tenacity

from archive.quick_digest import quick_digest
from model_store.config import Preprocess
from model_store.errors import ImageError, ImageTooLarge, StorageUnreachable
from model_store.images import ImageFacts
from model_store.preprocess import Prepared, read_image
from model_store.storage import Folder

READ_ATTEMPTS = 4
NO_USE = (FileNotFoundError, PermissionError, IsADirectoryError)
MAX_DETAIL = 300
CRASHED_READER = "crashed_reader"
"""Error code of an image that ends the process that reads it, such as by a fault of a decoder."""


@dataclass(frozen=True, slots=True)
class ReadImage:
    """Either `prepared` and `facts` are set, or `error_code`. The full pixels are let go of at once:
    those of a whole chunk would be hundreds of megabytes."""

    media_sha256: str
    prepared: Prepared | None = None
    facts: ImageFacts | None = None
    error_code: str | None = None
    error_detail: str | None = None
    read_ms: float = 0.0
    decode_ms: float = 0.0


def prepare_image(row: Mapping[str, Any], spec: Preprocess, max_pixels: int) -> ReadImage:
    """Read the image where the row says, or at another place of the same bytes (`elsewhere`).

    Never raises for the content or the size of the file. Raises StorageUnreachable when the archive itself is
    unavailable; that and unknown errors stop the run.
    """
    started = time.perf_counter()
    outcome = image_bytes(row)
    read_ms = (time.perf_counter() - started) * 1e3
    if isinstance(outcome, bytes):
        outcome = _decoded(row["media_sha256"], outcome, spec, max_pixels)
    return replace(outcome, read_ms=read_ms)


def image_bytes(row: Mapping[str, Any]) -> bytes | ReadImage:
    """Return the bytes of the row's content, from its place or another; else the error at its own place.

    Raises StorageUnreachable when the archive itself is unavailable.
    """
    places = [row, *(row.get("elsewhere") or ())]
    first: ReadImage | None = None
    for place in places:
        outcome = _bytes_of(row, place["source_root"], place["path"])
        if isinstance(outcome, bytes):
            return outcome
        first = first or outcome
    assert first is not None
    return first


def require_present(folder: Folder) -> None:
    """Raises StorageUnreachable when there is nothing in the folder: an unmounted archive is an error
    of the run, not ten thousand failed images.
    """
    if folder.is_empty():
        raise StorageUnreachable(f"{folder.url} is empty or away; is it mounted?")


def _bytes_of(row: Mapping[str, Any], root: str, path: str) -> bytes | ReadImage:
    folder, sha256 = _folder(root), row["media_sha256"]
    try:
        data = _read(folder, path)
    except (OSError, StorageUnreachable) as error:
        require_present(folder)
        return ReadImage(sha256, error_code="access", error_detail=_detail(error, folder))
    except MemoryError:
        why = (
            "the file does not fit into memory; if it is not a picture, keep it out of the archive"
        )
        return ReadImage(sha256, error_code=ImageTooLarge.code, error_detail=why)
    if _is_catalogued(data, row):
        return data
    why = "the file has changed since it was ingested; run 'resight ingest' again"
    return ReadImage(sha256, error_code="changed", error_detail=why)


def _is_catalogued(data: bytes, row: Mapping[str, Any]) -> bool:
    """By the quick digest that was taken with the sha256, where the catalogue is not older than it."""
    known = row.get("quick_digest")
    if known is not None:
        return quick_digest(data) == known
    return hashlib.sha256(data).hexdigest() == row["media_sha256"]


def _decoded(sha256: str, data: bytes, spec: Preprocess, max_pixels: int) -> ReadImage:
    started = time.perf_counter()
    try:
        with within_memory():
            facts, prepared = read_image(data, spec, max_pixels)
    except ImageError as error:
        return ReadImage(sha256, error_code=error.code, error_detail=str(error)[:MAX_DETAIL])
    return ReadImage(sha256, prepared, facts, decode_ms=(time.perf_counter() - started) * 1e3)


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Turn a MemoryError, which is about one large allocation, into that image's ImageTooLarge."""
    try:
        yield
    except MemoryError as error:
        raise ImageTooLarge("the picture does not fit into memory; lower --megapixels") from error


@functools.cache
def _folder(url: str) -> Folder:
    return Folder(url)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type((OSError, StorageUnreachable))
    & tenacity.retry_if_exception(
        lambda error: not any(isinstance(one, NO_USE) for one in (error, error.__cause__))
    ),
    stop=tenacity.stop_after_attempt(READ_ATTEMPTS),
    wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)
def _read(folder: Folder, path: str) -> bytes:
    return folder.read(path)


def _detail(error: Exception, folder: Folder) -> str:
    """First characters, without the path of this host's mount."""
    return str(error).replace(folder.root, "").strip()[:MAX_DETAIL]
