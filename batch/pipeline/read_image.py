"""Read one archive image and prepare its pixels: read, check the digest, decode, fit into the square.

row of a plan --prepare_image--> ReadImage(Prepared | error code and detail, note, size, decode_ms)
A transient read error is retried; after that the image fails, as it does for any damage.
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

from archive.catalogue.clips import clip_of, frame_file
from archive.catalogue.quick_digest import quick_digest
from model_store.config import Preprocess
from model_store.errors import ImageError, ImageTooLarge, StorageUnreachable
from model_store.images.decode import ImageFacts, Pixels, decode
from model_store.storage import Folder
from model_store.transform.preprocess import Prepared, read_image

READ_ATTEMPTS = 4
NOT_RETRIED = (FileNotFoundError, PermissionError, IsADirectoryError)
MAX_DETAIL = 300
CRASHED_READER = "crashed_reader"
"""Error code of an image that kills the process that reads it, for example by a fault of a decoder."""


@dataclass(frozen=True, slots=True)
class ReadImage:
    """A prepared image or an error: either `prepared` and `facts` are set, or `error_code`.

    Full-size pixels are not kept: those of a whole chunk would be hundreds of megabytes.
    """

    media_sha256: str
    prepared: Prepared | None = None
    facts: ImageFacts | None = None
    error_code: str | None = None
    error_detail: str | None = None
    read_ms: float = 0.0
    decode_ms: float = 0.0


def prepare_image(row: Mapping[str, Any], spec: Preprocess, max_pixels: int) -> ReadImage:
    """Read the image at the place of the row, or at another place of the same bytes (`elsewhere`).

    Never raises for the content or the size of the file. Raises StorageUnreachable if the archive itself is
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

    Raises StorageUnreachable if the archive itself is unavailable.
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


def _bytes_of(row: Mapping[str, Any], root: str, path: str) -> bytes | ReadImage:
    """Return the bytes of a file, or those that `frame_file` makes of a frame of a clip; else the error."""
    clip, at_ms = clip_of(path)
    if at_ms is None:
        return _verified(row, root, path)
    try:
        with within_memory():
            return frame_file(lambda: _clip_bytes(row, root, clip), (root, clip, row["quick_digest"]), at_ms)
    except ImageError as error:
        return ReadImage(row["media_sha256"], error_code=error.code, error_detail=str(error)[:MAX_DETAIL])


def _clip_bytes(row: Mapping[str, Any], root: str, path: str) -> bytes:
    data = _verified(row, root, path)
    if isinstance(data, bytes):
        return data
    raise coded_error(str(data.error_code), str(data.error_detail))


def _verified(row: Mapping[str, Any], root: str, path: str) -> bytes | ReadImage:
    folder, sha256 = _folder(root), row["media_sha256"]
    try:
        data = _read(folder, path)
    except (OSError, StorageUnreachable) as error:
        folder.require_present()  # an unmounted archive is an error of the run, not of images
        return ReadImage(sha256, error_code="access", error_detail=_detail(error, folder))
    except MemoryError:
        why = "the file does not fit into memory; if it is not a picture, keep it out of the archive"
        return ReadImage(sha256, error_code=ImageTooLarge.code, error_detail=why)
    if _is_catalogued(data, row):
        return data
    why = "the file has changed since it was ingested; run 'resight ingest' again"
    return ReadImage(sha256, error_code="changed", error_detail=why)


def _is_catalogued(data: bytes, row: Mapping[str, Any]) -> bool:
    """Compare with the quick digest of the row, or with its sha256 in catalogues that have none."""
    expected = row.get("quick_digest")
    if expected is not None:
        return quick_digest(data) == expected
    return hashlib.sha256(data).hexdigest() == row["media_sha256"]


def _decoded(sha256: str, data: bytes, spec: Preprocess, max_pixels: int) -> ReadImage:
    started = time.perf_counter()
    try:
        with within_memory():
            facts, prepared = read_image(data, spec, max_pixels)
    except ImageError as error:
        return ReadImage(sha256, error_code=error.code, error_detail=str(error)[:MAX_DETAIL])
    return ReadImage(sha256, prepared, facts, decode_ms=(time.perf_counter() - started) * 1e3)


def boxed_pixels(row: Mapping[str, Any], data: bytes | ReadImage, max_pixels: int, tolerant: bool) -> Pixels:
    """Return the upright pixels of a row with width_px and height_px; `data` as from `image_bytes`.

    Raises ImageError, also if the size is not the one that its detections refer to.
    """
    if not isinstance(data, bytes):
        raise coded_error(str(data.error_code), str(data.error_detail))
    with within_memory():
        pixels = decode(data, max_pixels, tolerant=tolerant).pixels
    height_px, width_px = pixels.shape[:2]
    if (width_px, height_px) != (row["width_px"], row["height_px"]):
        raise coded_error(
            "crop",
            f"the image is {width_px}x{height_px}, but was {row['width_px']}x{row['height_px']} when its "
            "detections were made",
        )
    return pixels


def coded_error(code: str, message: str) -> ImageError:
    """Return the error of one image; `code` is its error_code."""
    error = ImageError(message)
    error.code = code
    return error


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Raise ImageTooLarge instead of a MemoryError, which one large allocation causes."""
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
        lambda error: not any(isinstance(cause, NOT_RETRIED) for cause in (error, error.__cause__))
    ),
    stop=tenacity.stop_after_attempt(READ_ATTEMPTS),
    wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)
def _read(folder: Folder, path: str) -> bytes:
    return folder.read(path)


def _detail(error: Exception, folder: Folder) -> str:
    """Return the first characters of an error, without the path of this host's mount."""
    return str(error).replace(f"{folder.root}/", "").replace(folder.root, "").strip()[:MAX_DETAIL]
