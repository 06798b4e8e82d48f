"""Write MegaDetector's batch results 1.6, which Timelapse, AddaxAI and MegaDetector's own scripts read.

images --write--> one JSON file; --write_folders--> FOLDER/megadetector.json for each top folder, relative to it
Paths are relative to the archive, boxes are left, top, width, height as fractions of the displayed image. A failed
image has `failure`, and no detections; an image without a result in the view is left out and counted in `info`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from archive.formats.records import BoxRecord, Facts, ImageRecord
from model_store.frozen import Frozen

VERSION = "1.6"
USUAL = ("animal", "person", "vehicle")
"""Categories 1 to 3 of MegaDetector, which readers expect of a detector of animals."""
FILE_NAME = "megadetector.json"


class MegaDetectorFile:
    """One file of results, written image by image; the categories come after the images."""

    def __init__(self, out: Path, facts: Facts, files: ExitStack) -> None:
        self._facts = facts
        self._file: IO[str] = files.enter_context(out.open("w", encoding="utf-8"))
        self._file.write('{"images": [')
        self._is_first = True
        self._counts = Counter[str]()
        self._categories = _categories(facts.labels)
        self._classes: dict[str, str] = {}

    def add(self, image: ImageRecord, path: str) -> None:
        row: dict[str, Any] = {"file": path}
        self._counts[image.status] += 1
        if image.status in ("ok", "empty") or (image.detections and image.width_px):
            row["detections"] = [self._detection(box, image) for box in image.detections]
        elif image.status == "missing":
            return
        else:
            row |= {"detections": None, "failure": failure_words(image.error_code)}
        if image.captured_at_corrected is not None:
            row["datetime"] = f"{image.captured_at_corrected:%Y:%m:%d %H:%M:%S}"
        if image.width_px and image.height_px:
            row |= {"width": image.width_px, "height": image.height_px}
        self._file.write("\n" if self._is_first else ",\n")
        self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False))
        self._is_first = False

    def end(self) -> None:
        rest: dict[str, Any] = {"detection_categories": {i: n for n, i in self._categories.items()}}
        if self._classes:
            names = {number: name for name, number in self._classes.items()}
            known = self._facts.descriptions
            rest["classification_categories"] = names
            lineages = {number: known[name] for number, name in names.items() if name in known}
            rest |= {"classification_category_descriptions": lineages} if lineages else {}
        rest["info"] = self._info()
        text = json.dumps(rest, ensure_ascii=False, indent=1)
        self._file.write(f"\n],\n{text[2:]}\n")

    def _info(self) -> dict[str, Any]:
        facts = self._facts
        info: dict[str, Any] = {"format_version": VERSION, "detector": facts.model}
        if facts.sealed_at is not None:
            info["detection_completion_time"] = f"{facts.sealed_at:%Y-%m-%d %H:%M:%S}"
        if facts.classifier:
            info["classifier"] = facts.classifier
        metadata: dict[str, Any] = {"weights_sha256": facts.weights_sha256}
        if facts.threshold:
            limits = (facts.threshold, *facts.label_thresholds.values())
            metadata["typical_detection_threshold"] = facts.threshold
            metadata["conservative_detection_threshold"] = min(limits)
        counts = {"images": dict(self._counts)}
        return info | {"detector_metadata": metadata, "resight": facts.described() | counts}

    def _detection(self, box: BoxRecord, image: ImageRecord) -> dict[str, Any]:
        width, height = image.width_px or 1, image.height_px or 1
        named = _named(box, self._categories)
        row: dict[str, Any] = {
            "category": self._categories.setdefault(named, str(len(self._categories) + 1)),
            "conf": _rounded(box.score),
            "bbox": bbox(box, width, height),
        }
        classes = [(box.label, 1.0 if box.is_human else box.score)] if named != box.label else []
        if not classes and box.classification and box.label == box.model_label:
            classes = [box.classification]
        if classes:
            row["classifications"] = [
                [self._classes.setdefault(name, str(len(self._classes) + 1)), _rounded(score)]
                for name, score in classes
            ]
        return row


def write(images: Iterable[ImageRecord], facts: Facts, out: Path, options: Frozen) -> None:
    """Write one JSON file."""
    with ExitStack() as files:
        file = MegaDetectorFile(out, facts, files)
        for image in images:
            file.add(image, image.path)
        file.end()


def write_folders(images: Iterable[ImageRecord], facts: Facts, out: Path, options: Frozen) -> None:
    """Write a file for each top folder, and one for the images in none; paths in it are relative to its folder."""
    out.mkdir(parents=True)
    with ExitStack() as last:
        folder: str | None = None
        above: MegaDetectorFile | None = None
        current = last.enter_context(ExitStack())
        file: MegaDetectorFile | None = None
        for image in images:
            top, slash, rest = image.path.partition("/")
            if not slash:
                above = above or MegaDetectorFile(out / FILE_NAME, facts, last)
                above.add(image, image.path)
                continue
            if top != folder:  # the images of a folder follow each other
                if file:
                    file.end()
                current.close()
                (out / top).mkdir()
                file, folder = MegaDetectorFile(out / top / FILE_NAME, facts, current), top
            assert file is not None
            file.add(image, rest)
        for each in (file, above):
            if each:
                each.end()


def failure_words(error_code: str | None) -> str:
    """Return the words for a failure, as MegaDetector does."""
    return "inference failure" if error_code == "inference" else "image access failure"


def _categories(labels: Iterable[str]) -> dict[str, str]:
    """Return the number of each label: in the order of the model, but as MegaDetector's if it has `animal`."""
    known = [*labels]
    usual = USUAL if "animal" in known else ()
    return {label: str(n) for n, label in enumerate(dict.fromkeys([*usual, *known]), 1)}


def _named(box: BoxRecord, categories: dict[str, str]) -> str:
    """Return the label of the category: the detector's, if people or layers gave one that it does not have."""
    if box.label in categories or box.model_label not in categories:
        return box.label
    return str(box.model_label)


def bbox(box: BoxRecord, width_px: int, height_px: int) -> list[float]:
    """Return left, top, width and height as fractions of the image with 4 decimals."""
    left, top, right, bottom = (round(side, 4) for side in box.fractions(width_px, height_px))
    return [left, top, round(right - left, 4), round(bottom - top, 4)]


def _rounded(score: float | None) -> float:
    """Return a score with 3 decimals; a box that a person added has none, and gets 1.0."""
    return 1.0 if score is None else round(float(score), 3)
