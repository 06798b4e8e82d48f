"""Write CSV for people: a row for each image and a row for each detection; and CSV for Timelapse's importer.

images --write--> images.csv, detections.csv in a folder
images --write_timelapse--> one CSV file with a row for each image or clip, by File and RelativePath
No cell is a formula, and no file for a spreadsheet has more rows than Excel reads.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import reduce
from itertools import groupby
from operator import or_
from pathlib import Path
from typing import IO, Any

from archive.catalogue.clips import clip_of
from archive.catalogue.exif import FORMULA_SIGNS
from archive.formats.records import ExportLineage, ImageRecord
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
EXCEL_ROWS = 1_048_576
"""Maximum number of rows of a sheet in Excel, with the header."""
_FORMULA = (*FORMULA_SIGNS, "\t", "\r")
"""First characters of formulas (https://owasp.org/www-community/attacks/CSV_Injection)."""
_STATUS = ("ok", "empty", "failed", "missing")
TIMELAPSE = ("File", "RelativePath", "Label", "Count", "Labels", "Score", "Status")


def write(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen) -> None:
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


def write_timelapse(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen) -> None:
    """Write a row for each image or clip. Timelapse finds it by File and RelativePath.

    The other columns fill the fields of its template that have these data labels. A clip has the best detection
    of its frames, the maximum count of each label in one frame, and status ok if any frame has it, else empty.
    """
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(TIMELAPSE)
        for path, of_file in groupby(images, lambda image: clip_of(image.path)[0]):
            frames = sorted(of_file, key=lambda frame: _STATUS.index(frame.status))
            folder, _, name = path.rpartition("/")
            boxes = tuple(box for frame in frames for box in frame.detections)
            label, score, _ = _top(replace(frames[0], detections=boxes))
            counts = reduce(or_, (_top(frame)[2] for frame in frames))
            row = (label, counts[label] if label else 0, _words(counts), score, frames[0].status)
            table.writerow([name, folder.replace("/", "\\"), *map(as_text, row)])


def as_text(value: Any) -> Any:
    """Return a text that spreadsheets do not read as a formula: with an apostrophe before it. Numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


class SheetFiles:
    """A table in files NAME.csv, NAME-2.csv and so on, each with the header and at most `max_rows` rows."""

    def __init__(self, folder: Path, name: str, columns: Sequence[str], max_rows: int = EXCEL_ROWS) -> None:
        self._folder, self._name, self._columns = folder, name, columns
        self._max_rows = max_rows
        self._number = 0
        self._file = self._next_file()

    def _next_file(self) -> IO[str]:
        self._number += 1
        suffix = f"-{self._number}" if self._number > 1 else ""
        file = (self._folder / f"{self._name}{suffix}.csv").open("w", encoding="utf-8", newline="")
        self._writer, self._rows = csv.writer(file), 1
        self._writer.writerow(self._columns)
        return file

    def write(self, row: Sequence[Any]) -> None:
        """Write the values of a row in the order of the columns."""
        if self._rows == self._max_rows:
            self._file.close()
            self._file = self._next_file()
        self._writer.writerow([as_text(value) for value in row])
        self._rows += 1

    def __enter__(self) -> SheetFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


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
