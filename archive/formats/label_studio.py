"""Write tasks of Label Studio with the boxes as predictions (https://labelstud.io/guide/predictions).

images --write--> tasks.json to import, labels.xml for the labelling interface
Boxes are in percent of the displayed image, cut at its borders.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pydantic import Field

from archive.formats.json_arrays import json_array
from archive.formats.records import BoxRecord, ExportLineage, ImageRecord
from model_store.frozen import Frozen

DECIMALS = 4
_LINK = {"from_name": "label", "to_name": "image"}


class LabelStudioOptions(Frozen):
    """Options of the format."""

    media_prefix: str = Field(
        default="/data/local-files/?d=",
        description="text before the path of each image: the local storage of Label Studio, or an address",
    )


def write(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: LabelStudioOptions) -> None:
    """Write tasks.json and labels.xml to the folder `out`. An image of unknown size has no prediction."""
    out.mkdir(parents=True, exist_ok=True)
    labels = dict.fromkeys(facts.labels)
    with (out / "tasks.json").open("w", encoding="utf-8") as file:
        with json_array(file) as add:
            for image in images:
                add(_task(image, facts, options.media_prefix))
                labels |= dict.fromkeys(box.label for box in image.detections)
        file.write("\n")
    tags = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in labels)
    text = (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{tags}  </RectangleLabels>\n</View>\n'
    )
    (out / "labels.xml").write_text(text, "utf-8")


def _task(image: ImageRecord, facts: ExportLineage, prefix: str) -> dict[str, Any]:
    is_address = "?" in prefix or prefix.startswith("http")
    task: dict[str, Any] = {
        "data": {
            "image": prefix + (quote(image.path) if is_address else image.path),
            "path": image.path,
            "source_root": image.source_root,
            "media_sha256": image.media_sha256,
            "camera": image.camera_id,
            "status": image.status,
        }
    }
    width, height = image.width_px, image.height_px
    if not (image.detections or image.status in ("ok", "empty")) or not width or not height:
        return task
    prediction = {
        "model_version": facts.model,
        "score": max((box.score or 0.0 for box in image.detections), default=0.0),
        "result": [_region(n, box, width, height) for n, box in enumerate(image.detections)],
    }
    return task | {"predictions": [prediction]}


def _region(number: int, box: BoxRecord, width: int, height: int) -> dict[str, Any]:
    # the validator of label-studio-sdk refuses what lies outside
    x, y, width_percent, height_percent = (
        round(100 * side, DECIMALS) for side in box.bbox(width, height, DECIMALS + 2)
    )
    value = {
        "x": x,
        "y": y,
        "width": width_percent,
        "height": height_percent,
        "rotation": 0,
        "rectanglelabels": [box.label],
    }
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    region = {"id": f"box{number}", "type": "rectanglelabels", **_LINK, **size, "value": value}
    return region | ({} if box.score is None else {"score": round(box.score, 6)})
