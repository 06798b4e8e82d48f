"""Write the snips of one image: a row of a plan in, a row of `snips` out.

(Snips of the policy, ModelConfig) --cut_of--> Cut, the settings that determine the snips, their names and their bytes
row --read, check digest, decode upright--> pixels --crop and create each--> names and bytes, or an error code
box (x1, y1, x2, y2) px --corners_px--> whole pixels inside the image --crop--> Snip(JPEG without any metadata)

An existing file is the same snip, written by a run that ended before it committed the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
import tenacity

from archive.schemas import SNIPS
from batch.pipeline.read_image import MAX_DETAIL, READ_ATTEMPTS, boxed_pixels, coded_error, image_bytes
from batch.pipeline.stage import Stage, StageProcess
from batch.runs.spec import RunSpec
from batch.schedule.policy import Snips
from model_store.config import ModelConfig
from model_store.errors import ImageError, StorageUnreachable
from model_store.images.crops import corners_px
from model_store.images.decode import Pixels
from model_store.images.header import read_header
from model_store.inference_key import canonical_json, sha256_hex
from model_store.storage import Folder
from model_store.store import ModelVersion
from model_store.transform.thresholds import least_scores

SAMPLING = "444"
"""Chroma subsampling: none, as it would be visible in small images."""

ENCODER = 1
"""Increase it if equal settings give other bytes: rounding of corners, colour sampling, encoder."""
KEY_CHARS = 16
"""Characters of a key in names of folders: 64 bits."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Settings of crops: margin as a fraction of the longer side of a box; `least` are minimum scores by class id."""

    margin_frac: float
    quality: int
    least: tuple[float, ...]

    @property
    def key(self) -> str:
        """The settings key, 64 hex digits."""
        return sha256_hex(canonical_json({**asdict(self), "encoder": ENCODER}))


def cut_of(snips: Snips, config: ModelConfig) -> Cut:
    """Return the settings for a model, including its thresholds, as they determine which snips exist."""
    least = tuple(least_scores(config, snips.min_score).tolist())
    return Cut(snips.margin_frac, snips.quality, least)


def snip_name(settings_key: str, inference_key: str, media_sha256: str, rank: int) -> str:
    """Return the path below the folder of all snips; `rank` is that of the detection in its row of `results`."""
    folder = f"{settings_key[:KEY_CHARS]}/{inference_key[:KEY_CHARS]}/{media_sha256[:2]}"
    return f"{folder}/{media_sha256}-{rank}.jpg"


def folders_of(inference_key: str) -> str:
    """Return the pattern of the folders with all snips of an inference key."""
    return f"*/{inference_key[:KEY_CHARS]}"


@dataclass(frozen=True, slots=True)
class Snip:
    """An encoded crop; `size_px` is width and height."""

    data: bytes
    size_px: tuple[int, int]


def crop(pixels: Pixels, box: Mapping[str, Any], cut: Cut) -> Snip:
    """Crop a box out of upright RGB pixels (h, w, 3). Raises ValueError if a side is over 65,500 px, the JPEG limit."""
    height_px, width_px = pixels.shape[:2]
    sides = (box["x1_px"], box["y1_px"], box["x2_px"], box["y2_px"])
    left, top, right, bottom = corners_px(sides, cut.margin_frac, (width_px, height_px))
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    data = simplejpeg.encode_jpeg(part, cut.quality, "RGB", SAMPLING)
    return Snip(bytes(data), (right - left, bottom - top))


Row = Mapping[str, Any]
_retrying = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(StorageUnreachable),
    stop=tenacity.stop_after_attempt(READ_ATTEMPTS),
    wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)


class SnipStage(Stage):
    """The stage of the pass over snips, which needs no replica; they are written into the folder at `url`."""

    def __init__(self, process: StageProcess, spec: RunSpec, model: ModelVersion, cut: Cut, url: str) -> None:
        super().__init__(process)
        self._run_id, self._max_pixels = spec.run_id, spec.megapixels * 1_000_000
        self._cut, self._folder = cut, Folder(url)
        self._tolerant = model.config.preprocess.damaged == "tolerate"
        self._keys = {"inference_key": model.info.inference_key, "settings_key": cut.key}

    def rows(self, planned: pa.Table) -> pa.Table:
        done = [self.row(row) for row in planned.to_pylist()]
        replaces = planned["replaces"].combine_chunks()
        return pa.Table.from_pylist(done, schema=SNIPS).append_column("replaces", replaces)

    def row(self, planned: Row) -> dict[str, Any]:
        """Write the snips of an image and return its row of `snips`, also for an unreadable image.

        Raises StorageUnreachable if the archive or the folder of snips is unavailable. Raises StorageUnsafe.
        """
        outcome: dict[str, Any]
        try:
            outcome = {"status": "ok", **self._written(planned)}
        except ImageError as error:
            detail = str(error)[:MAX_DETAIL]
            outcome = {"status": "failed", "error_code": error.code, "error_detail": detail}
            outcome |= {"names": [], "bytes": 0}
        row = {"media_sha256": planned["media_sha256"], "run_id": self._run_id}
        return self._keys | row | outcome | {"finished_at": datetime.now(UTC)}

    def _written(self, planned: Row) -> dict[str, Any]:
        data = image_bytes(planned)
        pixels = boxed_pixels(planned, data, self._max_pixels, self._tolerant)
        sizes = {self._name(planned, box): self._write(planned, box, pixels) for box in planned["boxes"]}
        return {"names": list(sizes), "bytes": sum(sizes.values())}

    def _write(self, planned: Row, box: Row, pixels: Pixels) -> int:
        """Write one snip and return its size in bytes."""
        try:
            snip = crop(pixels, box, self._cut)
        except ValueError as error:
            raise coded_error("crop", f"snip {box['rank']}: {error}") from error
        return _keep(self._folder, self._name(planned, box), snip)

    def _name(self, planned: Row, box: Row) -> str:
        keys = self._keys["settings_key"], self._keys["inference_key"]
        return snip_name(*keys, planned["media_sha256"], box["rank"])


def _keep(folder: Folder, name: str, snip: Snip) -> int:
    """Create the file or keep an existing one, and return its size in bytes. Files are never overwritten.

    Raises ImageError if the existing file is not this snip.
    """
    try:
        _retrying(folder.create, name, snip.data)
    except FileExistsError:
        existing = _retrying(folder.read, name)
        if existing != snip.data and _jpeg_size_px(existing) != snip.size_px:
            raise coded_error("differs", f"{name} exists and is not a snip of this detection: remove it") from None
        return len(existing)
    return len(snip.data)


def _jpeg_size_px(data: bytes) -> tuple[int, int] | None:
    """Return width and height, or None if it is not a JPEG. Other encoder versions give other bytes."""
    try:
        header = read_header(data)
    except ImageError:
        return None
    return (header.width_px, header.height_px) if header.media_type == "image/jpeg" else None
