"""Write MegaDetector's batch results 1.6, which Timelapse, AddaxAI and MegaDetector's own scripts read.

images --write--> one JSON file; --write_folders--> FOLDER/megadetector.json for each top folder, relative to it
Paths are relative to the archive, boxes are left, top, width, height as fractions of the displayed image. A failed
image has `failure`, and no detections; an image without a result in the view is left out and counted in `info`.
The frames of a clip are one entry: `frames_processed` and `frame_number` are numbers of frames, from 0.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from archive.catalogue.clips import clip_of
from archive.formats.json_arrays import json_array
from archive.formats.records import BoxRecord, ExportLineage, ImageRecord
from model_store.frozen import Frozen

VERSION = "1.6"
USUAL = ("animal", "person", "vehicle")
"""Categories 1 to 3 of MegaDetector, which readers expect of a detector of animals."""
FILE_NAME = "megadetector.json"
DECIMALS = 4


class _Content:
    """Rows of images, and what follows them: the numbers of categories and classes, and the lineage."""

    def __init__(self, facts: ExportLineage) -> None:
        self._facts = facts
        self._counts = Counter[str]()
        self._categories = _categories(facts.labels)
        self._of_detector = frozenset(self._categories)
        self._classes: dict[str, str] = {}

    def row(self, image: ImageRecord, path: str) -> dict[str, Any] | None:
        """Return the row of an image, None without a result."""
        row: dict[str, Any] = {"file": path}
        self._counts[image.status] += 1
        if image.is_judged and (image.width_px or not image.detections):
            row["detections"] = [self._detection(box, image) for box in image.detections]
        elif image.status == "missing":
            return None
        else:
            failure = "inference failure" if image.error_code == "model" else "image access failure"
            row |= {"detections": None, "failure": failure}  # in MegaDetector's words
        if image.captured_at_corrected is not None:
            row["datetime"] = f"{image.captured_at_corrected:%Y:%m:%d %H:%M:%S}"
        if image.width_px and image.height_px:
            row |= {"width": image.width_px, "height": image.height_px}
        return row

    def clip_row(self, frames: Sequence[ImageRecord], path: str) -> dict[str, Any] | None:
        """Return the row of a clip, None without a result; it is that of its first frame if all have failed."""
        rows = [(frame, row) for frame in frames if (row := self.row(frame, path))]
        seen = [(frame, row) for frame, row in rows if row["detections"] is not None]
        of_clip = {"frame_rate": frames[0].frame_rate, "frames_processed": [frame.frame_index for frame, _ in seen]}
        if not seen:
            return rows[0][1] | of_clip if rows else None
        boxes = [box | {"frame_number": f.frame_index} for f, row in seen for box in row["detections"]]
        return seen[0][1] | of_clip | {"detections": boxes}

    def rest(self) -> dict[str, Any]:
        facts = self._facts
        rest: dict[str, Any] = {"detection_categories": {i: n for n, i in self._categories.items()}}
        if self._classes:
            names = {number: name for name, number in self._classes.items()}
            rest["classification_categories"] = names
            lineages = {n: facts.descriptions.get(name, "") for n, name in names.items()}
            rest |= {"classification_category_descriptions": lineages} if any(lineages.values()) else {}
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
        return rest | {"info": info | {"detector_metadata": metadata, "resight": facts.described() | counts}}

    def _detection(self, box: BoxRecord, image: ImageRecord) -> dict[str, Any]:
        named = _named(box, self._of_detector)
        row: dict[str, Any] = {
            "category": self._categories.setdefault(named, str(len(self._categories) + 1)),
            "conf": _rounded(box.score),
            "bbox": box.bbox(image.width_px or 1, image.height_px or 1, DECIMALS),
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


@contextmanager
def _results_file(out: Path, facts: ExportLineage) -> Iterator[Callable[[Iterable[ImageRecord], str], None]]:
    """Write a file; the function that is returned adds images, with paths relative to a folder."""
    content = _Content(facts)
    with out.open("w", encoding="utf-8") as file:
        file.write('{"images": ')
        with json_array(file) as add_row:

            def add(images: Iterable[ImageRecord], folder: str) -> None:
                for (_, path), of_file in groupby(images, lambda image: (image.source_root, clip_of(image.path)[0])):
                    first, *others = of_file  # the frames of a clip follow each other
                    path = path.removeprefix(folder)
                    is_frame = first.frame_index is not None
                    row = content.clip_row([first, *others], path) if is_frame else content.row(first, path)
                    if row is not None:
                        add_row(row)

            yield add
        text = json.dumps(content.rest(), ensure_ascii=False, indent=1)
        file.write(f",\n{text[2:]}\n")


def write(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen) -> None:
    with _results_file(out, facts) as add:
        add(images, "")


def write_folders(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen) -> None:
    """Write a file for each top folder, and one for the images in none; paths in it are relative to its folder."""
    out.mkdir(parents=True)
    with ExitStack() as last:
        add_above = None
        for top, of_top in groupby(images, lambda image: image.path.rpartition("/")[0].partition("/")[0]):
            if not top:
                add_above = add_above or last.enter_context(_results_file(out / FILE_NAME, facts))
                add_above(of_top, "")
                continue
            (out / top).mkdir()  # the images of a folder follow each other
            with _results_file(out / top / FILE_NAME, facts) as add:
                add(of_top, f"{top}/")


def _categories(labels: Iterable[str]) -> dict[str, str]:
    """Return the number of each label: in the order of the model, but as MegaDetector's if it has `animal`."""
    known = [*labels]
    usual = USUAL if "animal" in known else ()
    return {label: str(n) for n, label in enumerate(dict.fromkeys([*usual, *known]), 1)}


def _named(box: BoxRecord, of_detector: frozenset[str]) -> str:
    """Return the label of the category: the detector's, if people or layers gave one that it does not have."""
    if box.label in of_detector or box.model_label not in of_detector:
        return box.label
    return str(box.model_label)


def _rounded(score: float | None) -> float:
    """Return a score with 3 decimals; a box that a person added has none, and gets 1.0."""
    return 1.0 if score is None else round(float(score), 3)
