"""Write predictions in the format of SpeciesNet 5 (20261015), with a class for each detection.

images --write--> {info, predictions: [{filepath, detections | failures, country …, model_version}]}
Labels that SpeciesNet lacks, such as car, are classes of detections of their kind. Paths are relative to the archive.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from archive.formats.json_arrays import json_array
from archive.formats.placed import kind_of
from archive.formats.records import BoxRecord, ExportLineage, ImageRecord
from archive.formats.results_file import ANIMAL, SPECIESNET
from model_store.frozen import Frozen

VERSION = "20261015"
DECIMALS = 4


def write(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen) -> None:
    with out.open("w", encoding="utf-8") as file:
        info = {"format_version": VERSION, "resight": facts.described()}
        file.write(f'{{"info": {json.dumps(info, ensure_ascii=False)},\n"predictions": ')
        with json_array(file) as add:
            for image in images:
                if image.status != "missing" or image.is_judged:
                    add(_prediction(image, facts))
        file.write("}\n")


def _prediction(image: ImageRecord, facts: ExportLineage) -> dict[str, Any]:
    row: dict[str, Any] = {"filepath": image.path}
    if image.status == "failed" and not image.is_judged:
        row["failures"] = ["DETECTOR"]
    place = image.deployment
    if place is not None and place.latitude is not None:
        row |= {"latitude": place.latitude, "longitude": place.longitude}
    if "failures" not in row:
        size = image.width_px or 1, image.height_px or 1
        boxes = sorted(image.detections, key=lambda box: -_score(box))
        row["detections"] = [_detection(box, *size, facts) for box in boxes]
    return row | {"model_version": facts.model}


def _detection(box: BoxRecord, width_px: int, height_px: int, facts: ExportLineage) -> dict[str, Any]:
    kind = kind_of(box.label)
    named = kind if kind in SPECIESNET else ANIMAL
    row: dict[str, Any] = {
        "category": str(SPECIESNET.index(named) + 1),
        "label": named,
        "conf": round(_score(box), DECIMALS),
        "bbox": box.bbox(width_px, height_px, DECIMALS),
    }
    if box.label not in (named, "person"):
        source, score = "person" if box.is_human else "detector", _score(box)
        row["processed_classification"] = _class(box.label, 1.0 if box.is_human else score, source, facts)
    elif box.classification and box.label == box.model_label:
        row["processed_classification"] = _class(*box.classification, "classifier", facts)
    return row


def _class(name: str, score: float, source: str, facts: ExportLineage) -> dict[str, Any]:
    """Return a class. Its name has seven parts: an id, five ranks and the common name."""
    ranks = (facts.descriptions.get(name, "").split(";") + [""] * 5)[:5]
    return {"class": ";".join(["", *ranks, name]), "score": round(score, DECIMALS), "source": source}


def _score(box: BoxRecord) -> float:
    return 1.0 if box.score is None else float(box.score)
