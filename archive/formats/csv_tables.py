"""Write CSV for people: a row for each image and a row for each detection; and CSV for Timelapse's importer.

images --write--> images.csv, detections.csv in a folder
images --write_timelapse--> one CSV file with a row for each image, by File and RelativePath
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from archive.formats.records import Facts, ImageRecord
from archive.formats.spreadsheet import SheetFiles, as_text
from model_store.frozen import Frozen

_COMMON = ("camera_id", "captured_at_local", "captured_at_corrected", "event_id", "media_sha256")
IMAGES = (
    *("source_root", "path", "status", "error_code", "label", "score", "n_detections", "counts"),
    *("deployment_id", "location", "latitude", "longitude", "width_px", "height_px"),
    *_COMMON,
)
DETECTIONS = (
    *("source_root", "path", "rank", "label", "score", "is_human", "said_by"),
    *("x1_px", "y1_px", "x2_px", "y2_px"),
    *_COMMON,
)
TIMELAPSE = ("File", "RelativePath", "Label", "Count", "Labels", "Score", "Status")


def write(images: Iterable[ImageRecord], facts: Facts, out: Path, options: Frozen) -> None:
    """Write images.csv and detections.csv to the folder `out`, each in parts that Excel can read."""
    out.mkdir(parents=True, exist_ok=True)
    with SheetFiles(out, "images", IMAGES) as sheet, SheetFiles(out, "detections", DETECTIONS) as boxes:
        for image in images:
            label, score, counts = _top(image)
            of = image.deployment
            place = (of.deployment_id, of.location, of.latitude, of.longitude) if of else (None,) * 4
            name = (image.source_root, image.path)
            times = (_time(image.captured_at_local), _time(image.captured_at_corrected))
            common = (image.camera_id, *times, image.event_id, image.media_sha256)
            found = (label, score, len(image.detections), _words(counts))
            size = (image.width_px, image.height_px)
            sheet.write([*name, image.status, image.error_code, *found, *place, *size, *common])
            for box in image.detections:
                said = (box.rank, box.label, _rounded(box.score), box.is_human, box.said_by)
                boxes.write([*name, *said, box.x1, box.y1, box.x2, box.y2, *common])


def write_timelapse(images: Iterable[ImageRecord], facts: Facts, out: Path, options: Frozen) -> None:
    """Write a row for each image. Timelapse finds an image by File and RelativePath.

    The other columns fill the fields of its template that have these data labels.
    """
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(TIMELAPSE)
        for image in images:
            folder, _, name = image.path.rpartition("/")
            label, score, counts = _top(image)
            count = counts[label] if label else 0
            row = (label, count, _words(counts), score, image.status)
            table.writerow([name, folder.replace("/", "\\"), *map(as_text, row)])


def _top(image: ImageRecord) -> tuple[str | None, float | None, Counter[str]]:
    """Return the label of the best detection, its score, and the number of detections of each label.

    A person's statement, which may have no score, is better than any score.
    """
    counts = Counter(box.label for box in image.detections)
    best = max(image.detections, key=lambda b: (b.is_human, b.score or 0.0), default=None)
    return (best.label, _rounded(best.score), counts) if best else (None, None, counts)


def _rounded(score: float | None) -> float | None:
    """Return a score without the digits that come from 32 bits: 0.89 and not 0.8899999856948853."""
    return None if score is None else round(score, 6)


def _words(counts: Counter[str]) -> str:
    return "; ".join(f"{label}: {count}" for label, count in sorted(counts.items()))


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(sep=" ", timespec="seconds")
