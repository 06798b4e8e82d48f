"""Read the work of people from the files of other tools, for `foreign_work`.

read(tool, file) -> a Work for each box, label or empty image, without the results of machines
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

import pydantic_core
from pydantic import ValidationError

from archive.annotations.annotation_file import read_rows
from archive.annotations.deployment_file import MISSING
from archive.annotations.foreign_work import Work
from model_store.errors import BadRequest
from model_store.frozen import wrong_fields

MAX_BYTES = 2**29
EMPTY = ("empty", "blank", "none", "nothing")
"""Labels that mean an empty image, in lower case."""
_ANIMALS = ("animal", "unknown")
_FIELDS: dict[int | str, str] = {number: field.name for number, field in enumerate(dataclasses.fields(Work))}

_DAMAGED = (
    *(KeyError, TypeError, IndexError, AttributeError, ValueError, ArithmeticError, RecursionError),
    *(ET.ParseError, csv.Error),
)


def work_file(tool: str, file: Path) -> Path:
    """Return the file with the work: of a data package of camera traps, also named by its folder, the observations."""
    if tool != "camtrap-dp":
        return file
    return (file if file.is_dir() else file.parent) / "observations.csv"


def read(tool: str, file: Path, column: str | None = None) -> Iterator[Work]:
    """Yield the work in a file of a tool; `column` has the labels of Timelapse. Raises BadRequest."""
    reader = READERS.get(tool)
    if reader is None:
        raise BadRequest(f"unknown tool '{tool}': use one of {', '.join(READERS)}")
    try:
        if file.is_file() and file.stat().st_size > MAX_BYTES:
            raise BadRequest(f"{file} is larger than {MAX_BYTES >> 20} MiB: export fewer images")
        yield from reader(file, column)
    except UnicodeDecodeError as error:
        raise BadRequest(f"cannot read {file}: it is not UTF-8") from error
    except OSError as error:
        raise BadRequest(f"cannot read {file}: {error}") from error
    except _DAMAGED as error:
        why = f"missing {error}" if isinstance(error, KeyError) else str(error)
        if isinstance(error, ValidationError):
            why = wrong_fields(error, name=lambda place: str(_FIELDS.get(place[0], place[0])))
        raise BadRequest(f"{file} is not a file of {tool}: {why}; nothing was added") from error


def _camtrap_dp(file: Path, _: str | None) -> Iterator[Work]:
    """Yield observations of media by people."""
    media = {row["mediaID"]: _medium(row) for row in read_rows(file.with_name("media.csv"))}
    for number, cells in enumerate(read_rows(file), 1):
        row = {column: "" if value in MISSING else value for column, value in cells.items()}
        kind = row["observationType"]
        by_person = row["classificationMethod"] == "human" and row["observationLevel"] == "media"
        if not by_person or kind == "unclassified":
            continue
        tags = (tag.strip() for tag in row["observationTags"].split("|"))
        tagged = [tag.removeprefix("label:") for tag in tags if tag.startswith("label:")]
        of_animal = row["scientificName"] if kind in _ANIMALS else ""
        box = None
        if row["bboxWidth"]:
            x, y, width, height = (float(row[f"bbox{name}"]) for name in ("X", "Y", "Width", "Height"))
            box = (x, y, x + width, y + height)
        path, digest = media[row["mediaID"]]
        yield Work(
            number,
            path,
            None if kind == "blank" else "".join(tagged[:1]) or of_animal or kind,
            box,
            actor=row["classifiedBy"] or None,
            asserted_at=row["classificationTimestamp"] or None,
            media_sha256=digest,
        )


def _medium(row: Mapping[str, str]) -> tuple[str, str | None]:
    """Return path and digest of a medium. Portals give an address, and the name separately; Resight gives a digest."""
    path, name = row["filePath"], row.get("fileName", "")
    kind, _, digest = row.get("mediaComments", "").partition(":")
    return path if "://" not in path or path.endswith(name) else name, digest if kind == "sha256" else None


def _coco(file: Path, _: str | None) -> Iterator[Work]:
    """Yield annotations. Those with a score are of a machine."""
    data = pydantic_core.from_json(file.read_text("utf-8-sig"))
    if not isinstance(data, dict):
        raise ValueError("it is a list, as results of a machine are; a data set is an object with annotations")
    names = {row["id"]: str(row["name"]) for row in data["categories"]}
    images = {row["id"]: row for row in data["images"]}
    for number, row in enumerate(data["annotations"], 1):
        if "score" in row:
            continue
        image, label = images[row["image_id"]], names[row["category_id"]]
        size = (float(image.get("width") or 0), float(image.get("height") or 0))  # optional in COCO Camera Traps
        box = _scaled(row["bbox"], size) if row.get("bbox") else None
        yield Work(number, image["file_name"], _label(label), box if _label(label) else None, size)


def _label_studio(file: Path, _: str | None) -> Iterator[Work]:
    """Yield the rectangles of the newest annotation of each task; an annotation without one is an empty image."""
    tasks = pydantic_core.from_json(file.read_text("utf-8-sig"))
    if not isinstance(tasks, list):
        raise ValueError("it is not a list of tasks: export the project as JSON")
    for number, task in enumerate(tasks, 1):
        done = [each for each in task.get("annotations", ()) if not each.get("was_cancelled")]
        if not done:
            continue
        newest = max(done, key=lambda each: str(each.get("updated_at") or each.get("created_at")))
        data = task["data"]
        path = data.get("path") or _local_path(data["image"])
        if data.get("path") and data.get("source_root"):  # of an export of Resight
            path = f"{data['source_root']}/{path}"
        person = newest.get("completed_by")
        actor = person.get("email") if isinstance(person, dict) else None
        common = {"actor": actor, "asserted_at": newest.get("updated_at") or newest.get("created_at")}
        common |= {"media_sha256": data.get("media_sha256")}
        regions = [each for each in newest["result"] if each["type"] == "rectanglelabels"]
        if not newest["result"]:
            yield Work(number, path, None, **common)
        for region in regions:
            value = region["value"]
            if value.get("rotation"):
                raise ValueError(f"task {number} has a rotated rectangle: draw it without rotation")
            x, y, width, height = (value[name] / 100 for name in ("x", "y", "width", "height"))
            size = (region["original_width"], region["original_height"])
            label = value["rectanglelabels"][0]
            yield Work(number, path, label, (x, y, x + width, y + height), size, **common)


def _local_path(address: str) -> str:
    """Return the path in the address of an image: that of local storage is the parameter `d`."""
    parts = urlsplit(address)
    return parse_qs(parts.query).get("d", [unquote(parts.path)])[0].lstrip("/")


def _cvat(file: Path, _: str | None) -> Iterator[Work]:
    """Yield the boxes and tags of 'CVAT for images 1.1' (https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/)."""
    number = 0
    for _event, element in ET.iterparse(file):
        if element.tag == "track":
            raise ValueError("it has a track: only boxes of images can be read")
        if element.tag != "image":
            continue
        size = (float(element.attrib["width"]), float(element.attrib["height"]))
        for each in element:
            shape = f"rotated {each.tag}" if float(each.get("rotation", 0)) else each.tag
            if shape not in ("box", "tag"):
                raise ValueError(f"it has a {shape}: only upright boxes and tags of images can be read")
            number += 1
            label, path = _label(each.attrib["label"]), element.attrib["name"]
            box = None
            if each.tag == "box":
                x1, y1, x2, y2 = (float(each.attrib[k]) for k in ("xtl", "ytl", "xbr", "ybr"))
                box = _scaled((x1, y1, x2 - x1, y2 - y1), size)
            yield Work(number, path, label, box, size)
        element.clear()


def _timelapse(file: Path, label_column: str | None) -> Iterator[Work]:
    """Yield the labels of images from a CSV export of Timelapse, by its column of labels."""
    for number, row in enumerate(read_rows(file), 1):
        column = label_column or "Species"
        if column not in row:
            raise ValueError(f"name the column with the labels: {', '.join(row)}")
        if row[column].strip():
            folder = row["RelativePath"].replace("\\", "/").strip("/")
            yield Work(number, f"{folder}/{row['File']}".lstrip("/"), _label(row[column].strip()))


def _label(name: str) -> str | None:
    """Return a label, or None for one that means an empty image."""
    return None if name.casefold() in EMPTY else name


def _scaled(box: Sequence[float], size: tuple[float, float]) -> tuple[float, float, float, float]:
    """Return the corners of a box (left, top, width, height in pixels) in parts of the image."""
    (left, top, width, height), (of_width, of_height) = box, size
    if min(size) <= 0:
        raise ValueError(f"an image with a box is {of_width:g} x {of_height:g} px: give its size")
    return left / of_width, top / of_height, (left + width) / of_width, (top + height) / of_height


READERS: Mapping[str, Callable[[Path, str | None], Iterator[Work]]] = {
    "camtrap-dp": _camtrap_dp,
    "coco": _coco,
    "label-studio": _label_studio,
    "cvat": _cvat,
    "timelapse": _timelapse,
}
