"""The snips of one image, from its row of a plan to its row of `snips`; knows no Ray.

row --read, check the digest, decode upright--> pixels --crop, create each--> names and bytes, or an error code
A file that is there already is this very snip, made by a run that did not get as far as its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import tenacity

from archive.schemas import SNIPS
from batch.read import MAX_DETAIL, READ_ATTEMPTS, image_bytes, within_memory
from batch.snips.crop import Snip, crop
from batch.snips.settings import Cut, snip_name
from model_store.errors import ImageError, StorageUnreachable
from model_store.image_header import read_header
from model_store.images import Pixels, decode
from model_store.storage import Folder
from model_store.store import ModelVersion

Row = Mapping[str, Any]


class SnipWriter:
    """For one model and one cut, into the folder at `url`; as many threads as you like."""

    def __init__(self, model: ModelVersion, cut: Cut, url: str, max_pixels: int) -> None:
        self._cut, self._folder, self._max_pixels = cut, Folder(url), max_pixels
        self._tolerant = model.config.preprocess.damaged == "tolerate"
        self._keys = {"inference_key": model.info.inference_key, "settings_key": cut.key}

    def table(self, planned: pa.Table, run_id: str) -> pa.Table:
        """Rows of `snips` with `replaces`, one for each row of a plan, as `row`."""
        done = [self.row(row, run_id) for row in planned.to_pylist()]
        replaces = planned["replaces"].combine_chunks()
        return pa.Table.from_pylist(done, schema=SNIPS).append_column("replaces", replaces)

    def row(self, planned: Row, run_id: str) -> dict[str, Any]:
        """Write the image's snips; its row of `snips`.

        Never raises for what the image is. Raises StorageUnreachable when the archive or the folder of
        snips is away, StorageUnsafe.
        """
        outcome: dict[str, Any]
        try:
            outcome = {"status": "ok", **self._written(planned)}
        except ImageError as error:
            detail = str(error)[:MAX_DETAIL]
            outcome = {"status": "failed", "error_code": error.code, "error_detail": detail}
            outcome |= {"names": [], "bytes": 0}
        row = {"media_sha256": planned["media_sha256"], "run_id": run_id}
        return self._keys | row | outcome | {"finished_at": datetime.now(UTC)}

    def _written(self, planned: Row) -> dict[str, Any]:
        pixels = self._pixels(planned)
        sizes = {
            self._name(planned, box): self._write(planned, box, pixels) for box in planned["boxes"]
        }
        return {"names": list(sizes), "bytes": sum(sizes.values())}

    def _pixels(self, planned: Row) -> Pixels:
        data = image_bytes(planned)
        if not isinstance(data, bytes):
            raise _failure(str(data.error_code), str(data.error_detail))
        with within_memory():
            pixels = decode(data, self._max_pixels, tolerant=self._tolerant).pixels
        height_px, width_px = pixels.shape[:2]
        if (width_px, height_px) != (planned["width_px"], planned["height_px"]):
            raise _failure(
                "crop",
                f"the image is {width_px}x{height_px}, but was {planned['width_px']}x"
                f"{planned['height_px']} when its detections were made",
            )
        return pixels

    def _write(self, planned: Row, box: Row, pixels: Pixels) -> int:
        """Bytes of the file."""
        try:
            snip = crop(pixels, box, self._cut)
        except ValueError as error:
            raise _failure("crop", f"snip {box['rank']}: {error}") from error
        return _keep(self._folder, self._name(planned, box), snip)

    def _name(self, planned: Row, box: Row) -> str:
        keys = self._keys["settings_key"], self._keys["inference_key"]
        return snip_name(*keys, planned["media_sha256"], box["rank"])


def _failure(code: str, message: str) -> ImageError:
    """Of one image; `code` as in `snips`."""
    error = ImageError(message)
    error.code = code
    return error


def _keep(folder: Folder, name: str, snip: Snip) -> int:
    """Create the file, or keep the one that is there: nothing is ever overwritten. Its size in bytes.

    Raises ImageError where something else has the name.
    """
    try:
        _create(folder, name, snip.data)
    except FileExistsError:
        there = _read(folder, name)
        if there != snip.data and _jpeg_size_px(there) != snip.size_px:
            raise _failure(
                "differs", f"{name} is there, and is no snip of this detection: remove it"
            ) from None
        return len(there)
    return len(snip.data)


def _jpeg_size_px(data: bytes) -> tuple[int, int] | None:
    """Width, height; None of what is no JPEG. Another version of the encoder gives other bytes."""
    try:
        header = read_header(data)
    except ImageError:
        return None
    return (header.width_px, header.height_px) if header.media_type == "image/jpeg" else None


_again = tenacity.retry(
    retry=tenacity.retry_if_exception_type(StorageUnreachable),
    stop=tenacity.stop_after_attempt(READ_ATTEMPTS),
    wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)


@_again
def _create(folder: Folder, name: str, data: bytes) -> None:
    folder.create(name, data)


@_again
def _read(folder: Folder, name: str) -> bytes:
    return folder.read(name)
