"""Write COCO: a data set of images and boxes, or detection results (https://cocodataset.org/#format-data).

images --write--> {info, licenses, images, annotations, categories} with the fields of COCO Camera Traps
images --write_results--> [{image_id, category_id, bbox, score}]
Ids are numbers in the order of paths, so that the results of a view fit the data set of the same view and scope.
Boxes are left, top, width, height in pixels of the displayed image.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from pydantic import Field

from archive.formats.json_arrays import json_array
from archive.formats.records import BoxRecord, ExportLineage, ImageRecord
from model_store.frozen import Frozen

DECIMALS = 2


class CocoOptions(Frozen):
    """Options of a data set."""

    licence: str | None = Field(default=None, description="licence of all images: its name, or its address")


class _Categories(dict[str, int]):
    """Ids of labels from 1: those of the model in its order, then those that people gave, as they appear."""

    def __init__(self, labels: Iterable[str]) -> None:
        super().__init__()
        for label in labels:
            self[label]

    def __missing__(self, label: str) -> int:
        self[label] = len(self) + 1
        return self[label]


def write(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: CocoOptions) -> None:
    """Write a data set as one JSON file."""
    categories, counts, frames = _Categories(facts.labels), Counter[str](), Counter[str]()
    licences = [{"id": 1, "name": options.licence}] if options.licence else []
    n_boxes = 0
    with out.open("w", encoding="utf-8") as file, TemporaryFile("w+", encoding="utf-8", dir=out.parent) as boxes:
        file.write(f'{{"licenses": {json.dumps(licences)},\n"images": ')
        with json_array(file) as add_image, json_array(boxes) as add_box:
            for number, image in enumerate(images, 1):
                counts[image.status] += 1
                if image.status == "missing" and not image.is_judged:
                    continue  # it keeps its number
                row = _image(number, image) | ({"license": 1} if licences else {})
                if image.event_id is not None:
                    frames[image.event_id] += 1
                    row |= {"seq_id": image.event_id, "frame_num": frames[image.event_id]}
                add_image(row)
                for box in image.detections:
                    n_boxes += 1
                    row = _box(number, box, categories)
                    area = round(row["bbox"][2] * row["bbox"][3], DECIMALS)
                    add_box({"id": n_boxes, **row, "area": area, "iscrowd": 0})
        file.write(',\n"annotations": ')
        boxes.seek(0)
        shutil.copyfileobj(boxes, file)
        named = [{"id": n, "name": label} for label, n in categories.items()]
        info = {"version": facts.view, "description": f"{facts.model}, {facts.view}"}
        info |= {"resight": facts.described(), "images": counts}
        file.write(f',\n"categories": {json.dumps(named, ensure_ascii=False)},\n"info": ')
        file.write(json.dumps(info, ensure_ascii=False) + "}\n")


def write_results(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen) -> None:
    """Write all boxes as detection results. A box that a person added has the score 1."""
    categories = _Categories(facts.labels)
    with out.open("w", encoding="utf-8") as file, json_array(file) as add:
        for number, image in enumerate(images, 1):
            for box in image.detections:
                add({"score": 1.0, **_box(number, box, categories)})


def _image(number: int, image: ImageRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": number,
        "file_name": image.path,
        "width": image.width_px or 0,
        "height": image.height_px or 0,
        "corrupt": image.status == "failed",
    }
    if image.camera_id is not None:
        row["location"] = image.camera_id
    if image.captured_at_corrected is not None:
        row["datetime"] = row["date_captured"] = f"{image.captured_at_corrected:%Y-%m-%d %H:%M:%S}"
    return row


def _box(number: int, box: BoxRecord, categories: _Categories) -> dict[str, Any]:
    left, top = round(box.x1, DECIMALS), round(box.y1, DECIMALS)
    width, height = round(box.x2 - box.x1, DECIMALS), round(box.y2 - box.y1, DECIMALS)
    row: dict[str, Any] = {"image_id": number, "category_id": categories[box.label], "bbox": [left, top, width, height]}
    return row | ({} if box.score is None else {"score": round(box.score, 6)})
