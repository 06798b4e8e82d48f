"""Measure what decoding JPEGs at a fraction of their size (`jpeg_shrink`) would gain for a detector on this archive.

media --frequent_jpegs--> a few pictures of the most frequent size --measure--> time saved, and boxes that change

Time is that of one core after the other: reading as the stage of a run does it, then inference on a batch of one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archive.catalogue.images import PRESENT
from archive.delta.tables import Tables
from archive.views.query import query
from batch.pipeline.read_image import image_bytes
from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.images.header import read_header
from model_store.transform.nms import iou
from model_store.transform.preprocess import read_image

PICTURES = 4
SAME_IOU = 0.5
_FREQUENT = f"""
    with jpegs as (
        select media_sha256, source_root, path, quick_digest, width_px, height_px from media
        where {PRESENT} and media_type = 'image/jpeg' and clip_sha256 is null and width_px is not null)
    from jpegs semi join (
        select width_px, height_px from jpegs group by all order by count(*) desc, width_px, height_px limit 1
    ) using (width_px, height_px) order by hash(media_sha256) limit {PICTURES}
"""


@dataclass(frozen=True)
class BoxChanges:
    """Differences of boxes found in other pixels: of `boxes`, `matched` have one of their label at SAME_IOU or more."""

    boxes: int
    matched: int
    median_iou: float
    mean_score_shift: float


@dataclass(frozen=True)
class ScaledDecoding:
    """Medians in milliseconds per picture, on one core. `size_px` is width and height in the files."""

    factor: int
    size_px: tuple[int, int]
    pictures: int
    read_ms: float
    scaled_read_ms: float
    infer_ms: float
    changes: BoxChanges

    @property
    def speedup(self) -> float:
        """Images per second over those without scaled decoding, if a core decodes and infers."""
        return (self.read_ms + self.infer_ms) / (self.scaled_read_ms + self.infer_ms)

    def __str__(self) -> str:
        width, height = self.size_px
        changes = self.changes
        overlap = f" (median IoU {changes.median_iou:.2f})" if changes.matched else ""
        return (
            f"scaled decoding: jpeg_shrink {self.factor} reads a picture of {width} x {height} px, the most frequent "
            f"size in the catalogue, in {self.scaled_read_ms:.0f} instead of {self.read_ms:.0f} ms; with "
            f"{self.infer_ms:.0f} ms of inference, up to {self.speedup:.1f} times the images a second. Of "
            f"{changes.boxes} boxes in {self.pictures} pictures, {changes.matched} keep their label and place{overlap}"
        )


def frequent_jpegs(tables: Tables) -> list[bytes]:
    """Return up to PICTURES readable JPEGs of the most frequent size in the catalogue, empty without an archive.

    Raises StorageUnreachable.
    """
    if tables.existing("media") is None:
        return []
    found = map(image_bytes, query(tables, _FREQUENT).to_pylist())
    return [data for data in found if isinstance(data, bytes)]


def measure(detector: LoadedDetector, jpegs: Sequence[bytes], factor: int) -> ScaledDecoding:
    """Read and detect each picture at its full size and at the fraction, alternately. Raises ImageError."""
    spec = detector.config.preprocess
    specs = [spec.model_copy(update={"jpeg_shrink": one}) for one in (1, factor)]
    read_ms, infer_ms, seen = ([], []), list[float](), (list[Detections](), list[Detections]())
    for data in jpegs:
        for which, of in enumerate(specs):
            began = time.perf_counter()
            _, prepared = read_image(data, of)
            read = time.perf_counter()
            seen[which].extend(detector.infer([prepared]).detections)
            read_ms[which].append((read - began) * 1e3)
            infer_ms.append((time.perf_counter() - read) * 1e3)
    header = read_header(jpegs[0])
    return ScaledDecoding(
        factor=factor,
        size_px=(header.width_px, header.height_px),
        pictures=len(jpegs),
        read_ms=statistics.median(read_ms[0]),
        scaled_read_ms=statistics.median(read_ms[1]),
        infer_ms=statistics.median(infer_ms),
        changes=compare(detector.config.thresholds.default, *seen),
    )


def compare(least: float, reference: Sequence[Detections], other: Sequence[Detections]) -> BoxChanges:
    """Match the boxes of each picture, with scores of at least `least`, to the best of the same label in `other`.

    Boxes of `other` count from half of that score on, so that one at the threshold is not taken for a lost one.
    """
    overlaps, shifts, total = list[float](), list[float](), 0
    for a, b in zip(reference, other, strict=True):
        a, b = a.select(a.scores >= least), b.select(b.scores >= least * 0.5)
        total += len(a)
        pairs = iou(a.boxes_xyxy[:, np.newaxis].astype(np.float64), b.boxes_xyxy.astype(np.float64))
        pairs *= a.class_ids[:, np.newaxis] == b.class_ids
        for i in range(len(a)):
            if len(b) and pairs[i].max() >= SAME_IOU:
                j = int(pairs[i].argmax())
                overlaps.append(float(pairs[i, j]))
                shifts.append(abs(float(a.scores[i] - b.scores[j])))
    median, shift = (statistics.median(overlaps), statistics.mean(shifts)) if overlaps else (0.0, 0.0)
    return BoxChanges(total, len(overlaps), median, shift)
