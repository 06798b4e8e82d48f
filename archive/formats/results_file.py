"""Read files with the results of other tools, image by image: MegaDetector's batch results, SpeciesNet's predictions.

read_results("megadetector", path, facts) -> {path, failure, width, height, boxes}, …
A box has category, score, class, class_score, and x, y (left, top), w, h as fractions of the displayed image. `facts`
has the header of the file at the end: categories may follow the images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from archive.formats.json_arrays import members
from model_store.errors import BadRequest
from model_store.frozen import wrong_fields

Row = dict[str, Any]
Tool = Literal["megadetector", "speciesnet"]
OUTSIDE = 0.01
"""Fraction of the image by which a box may leave it, because of rounding; it is cut at the edge."""
SPECIESNET = ("animal", "human", "vehicle")
ANIMAL, WHOLE_IMAGE = "animal", "whole_image_classification"
_NUMBER = re.compile(r"[0-9]{1,9}")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


@dataclass
class FileFacts:
    """Header of a file, complete once all images are read. `hidden`: number of boxes that a person or tool removed."""

    detector: str = ""
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    categories: dict[str, str] = field(default_factory=dict[str, str])
    classes: dict[str, str] = field(default_factory=dict[str, str])
    hidden: int = 0


class _Foreign(BaseModel):
    """Fields that are read; a file may have others."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, coerce_numbers_to_str=True)


def _inside(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, width, height = box
    if min(left, top) < -OUTSIDE or min(width, height) < 0 or max(left + width, top + height) > 1 + OUTSIDE:
        raise ValueError("left, top, width, height must be fractions of the image, 0 to 1, inside it")
    return box


Bbox = Annotated[tuple[float, float, float, float], AfterValidator(_inside)]
Score = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Box(_Foreign):
    conf: float = Field(ge=-1, le=1)
    bbox: Bbox


class _Detection(_Box):
    category: str
    classifications: list[tuple[str, Score]] | None = None


class _Image(_Foreign):
    file: str
    detections: list[_Detection] | None = None
    failure: str | None = None
    width: Pixels | None = None
    height: Pixels | None = None


class _Info(_Foreign):
    detector: str = Field(default="unknown", max_length=300)
    format_version: str | None = None
    detector_metadata: dict[str, Any] = Field(default_factory=dict)


class _Class(_Foreign):
    name: str = Field(alias="class")
    score: Score


class _Labelled(_Box):
    label: str = Field(min_length=1)
    conf: Score
    processed_classification: _Class | None = None


class _Prediction(_Foreign):
    filepath: str
    failures: list[str] = Field(default_factory=list)
    detections: list[_Labelled] | None = None
    prediction: str | None = None
    prediction_score: Score | None = None
    model_version: str | None = None


def read_results(tool: Tool, file: Path, facts: FileFacts) -> Iterator[Row]:
    """Yield the results of a file and complete `facts`. Raises BadRequest with the place of the first error."""
    try:
        with file.open(encoding="utf-8-sig") as text:
            yield from {"megadetector": _megadetector, "speciesnet": _speciesnet}[tool](text, facts)
    except UnicodeDecodeError as error:
        raise BadRequest(f"{file} is not UTF-8 ({error}): save it as UTF-8") from error
    except OSError as error:
        raise BadRequest(f"cannot read {file}: {error}") from error
    except ValidationError as error:
        raise BadRequest(f"{file}: {wrong_fields(error)}; nothing was imported") from error
    except ValueError as error:
        raise BadRequest(f"{file} is not a file of {tool}: {error}; nothing was imported") from error


def _megadetector(text: Any, facts: FileFacts) -> Iterator[Row]:
    seen, used = set[str](), set[str]()
    for name, value in members(text, "images"):
        seen.add(name)
        if name == "images":
            image = _validated(_Image, value, "file")
            yield _image(image, used, facts)
        elif name == "info":
            info = _Info.model_validate(value)
            facts.detector, facts.metadata = info.detector, dict(info.detector_metadata)
        elif name == "detection_categories":
            facts.categories = _named(name, value)
        elif name == "classification_categories":
            facts.classes = _named(name, value)
    for name in ("images", "info", "detection_categories"):
        if name not in seen:
            raise ValueError(f'"{name}" is missing{" or empty" if name == "images" else ""}')
    unknown = sorted(used - facts.categories.keys())
    if unknown:
        raise ValueError(f"category '{unknown[0]}' of a detection is not in detection_categories")


def _image(image: _Image, used: set[str], facts: FileFacts) -> Row:
    if image.detections is None and image.failure is None:
        raise ValueError(f"image '{image.file}' has neither detections nor a failure")
    if image.detections and image.failure is not None:
        raise ValueError(f"image '{image.file}' has detections and a failure")
    boxes: list[Row] = []
    for each in image.detections or ():
        used.add(each.category)
        if each.conf < 0:  # so do MegaDetector's tools mark repeated false detections
            facts.hidden += 1
        else:
            best = max(each.classifications or (), key=lambda c: c[1], default=None)
            boxes.append(_box(each.category, each, best))
    return image.model_dump(include={"failure", "width", "height"}) | {"path": image.file, "boxes": boxes}


def _box(category: str, found: _Box, best: tuple[str, float | None] | None) -> Row:
    name, score = best or (None, None)
    sides = dict(zip("xywh", found.bbox, strict=True))
    return {"category": category, "score": found.conf, **sides, "class": name, "class_score": score}


def _named(name: str, value: Any) -> dict[str, str]:
    """Return categories by number; several may have one name. Raises ValueError for another form."""
    if not isinstance(value, dict) or not all(
        _NUMBER.fullmatch(str(key)) and isinstance(label, str) and label.strip() for key, label in value.items()
    ):
        raise ValueError(f'"{name}" must map numbers to names')
    categories = {str(key): str(label).strip() for key, label in value.items()}
    return dict(sorted(categories.items(), key=lambda item: int(item[0])))


def _speciesnet(text: Any, facts: FileFacts) -> Iterator[Row]:
    """Read predictions with a class for each detection, or for the image (before format 20261015)."""
    versions = set[str | None]()
    for name, value in members(text, "predictions"):
        if name != "predictions":
            continue
        image = _validated(_Prediction, value, "filepath")
        versions.add(image.model_version)
        if image.detections is None and not image.failures:
            raise ValueError(f"image '{image.filepath}' has neither detections nor failures")
        failure = ", ".join(image.failures) if image.detections is None else None
        found: Row = {"path": image.filepath, "failure": failure, "boxes": []}
        whole = _class(image.prediction, image.prediction_score)
        labels = {each.label for each in image.detections or ()}
        for each in image.detections or ():
            if each.label == WHOLE_IMAGE and (own := each.processed_classification):
                whole = _class(own.name, own.score)
        for each in image.detections or ():
            if each.label == WHOLE_IMAGE:
                continue
            facts.categories.setdefault(each.label, each.label)
            # a detected person or vehicle decides the class of the whole image, and not its animals
            best = whole if each.label == ANIMAL and whole and whole[0] not in labels else None
            if own := each.processed_classification:
                best = _class(own.name, own.score)
            if best:
                facts.classes.setdefault(best[0], best[0])
            found["boxes"].append(_box(each.label, each, best))
        yield found
    if not versions:
        raise ValueError('"predictions" is missing or empty')
    if len(versions) > 1:
        raise ValueError(f"predictions of several models: {', '.join(sorted(map(str, versions)))}")
    facts.detector = f"speciesnet {versions.pop() or 'unknown'}"
    names = sorted({*facts.categories, *SPECIESNET}, key=lambda n: (n not in SPECIESNET, n))
    facts.categories = {label: label for label in names}


def _class(prediction: str | None, score: float | None) -> tuple[str, float | None] | None:
    """Return the common name of `uuid;class;order;family;genus;species;common name`, else its finest taxon."""
    parts = [part.strip() for part in (prediction or "").split(";")]
    name = next((part for part in reversed(parts[1:] or parts) if part), None)
    return None if name is None else (name, score)


def _validated(kind: type[Any], value: Any, key: str) -> Any:
    """Return a validated item. Raises ValueError that names the image."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        name = value.get(key) if isinstance(value, dict) else None  # type: ignore[union-attr]
        raise ValueError(f"image {str(name)[:200]!r}: {wrong_fields(error, whole='it')}") from error


def path_below(path: str, folder: str) -> str:
    """Return a path of a file relative to `folder`, with `/`. Raises ValueError for one that leaves it."""
    plain = path.replace("\\", "/")
    if _DRIVE.match(path) or plain.startswith("/"):
        if not plain.startswith(f"{folder}/"):
            raise ValueError(f"path '{path[:300]}' is not below {folder}")
        plain = plain[len(folder) + 1 :]
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if ".." in parts or not parts or "\0" in plain:
        raise ValueError(f"path '{path[:300]}' is not a path below {folder}")
    return "/".join(parts)
