"""Write a Camera Trap Data Package (Camtrap DP 1.0.2, https://camtrap-dp.tdwg.org): a folder of three tables.

images --write--> deployments.csv, media.csv, observations.csv, datapackage.json
Each box is an observation of its image; each label of an event is an observation of the event with its MaxN. The
format requires facts that no image has: contributors, the project, places and time zones. People state them; none is
guessed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import mimetypes
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from archive.annotations.deployment_file import CONTINUES
from archive.formats.camtrap_package import COLUMNS, descriptor, read_package
from archive.formats.placed import EXAMPLE, Events, EventSummary, PlacedOptions, Places, count_image, iso, kind_of, utc
from archive.formats.records import BoxRecord, DeploymentFact, ExportLineage, ImageRecord, Observer
from model_store.errors import BadRequest

_PATH = re.compile(r"(?![./~])(?!.*\.\.).+")
DECIMALS = 6
FORBIDDEN = (
    "with a path that Camtrap DP forbids, because it begins with . / or ~, or has .. or a line break: give it another "
    "beginning with --set media_prefix=media/, or rename the files"
)
Row = dict[str, Any]


class CamtrapOptions(PlacedOptions):
    """Options of the format. Forms offer no null for `package`: without it, the writer explains what it requires."""

    package: Path | SkipJsonSchema[None] = Field(
        default=None,
        description="required: JSON with the contributors and the project; taxa give labels their scientific names",
        examples=[json.loads(EXAMPLE)],
    )
    media_prefix: str = Field(default="", description="text before the path of each image: media/ or an address")


@dataclass
class _Deployment:
    """A deployment with what its images add: the last time, by its clock, and whether one is doubtful."""

    facts: DeploymentFact
    last: datetime
    doubtful: bool = False


class _Words:
    """Columns that are the same for all observations of a label, or of a machine; `used` are scientific names."""

    def __init__(self, facts: ExportLineage, names: Mapping[str, str]) -> None:
        self._facts, self._names = facts, names
        self._of_label: dict[str, Row] = {}
        self.used: set[str] = set()
        self._machine = {
            "classificationMethod": "machine",
            "classifiedBy": f"{facts.model} (sha256:{facts.weights_sha256[:12]})",
            "classificationTimestamp": facts.sealed_at and utc(facts.sealed_at),
        }

    def of_label(self, label: str) -> Row:
        if label not in self._of_label:
            name = self._names.get(label.casefold(), "")
            self.used |= {name} - {""}
            columns = {"observationType": kind_of(label), "scientificName": name}
            self._of_label[label] = columns | {"observationTags": self._tags(label)}
        return self._of_label[label]

    def of_none(self, by: Observer | None, at: datetime | None = None) -> Row:
        """Return the columns of an observation without a box: blank only if a person or the model found nothing."""
        tags = {"observationTags": self._tags()}
        if by is None:
            return {"observationType": "unclassified", **tags}
        return self.classified(by == "human", None, at) | {"observationType": "blank", **tags}

    def classified(self, is_human: bool, score: float | None, at: datetime | None = None) -> Row:
        """Return who classified: a person, `at` a time, or the model version; the format has no column for digests."""
        if is_human:
            stated = {"classificationMethod": "human", "classifiedBy": "human"}
            return stated | {"classificationTimestamp": at and utc(at)}
        probability = None if score is None else round(score, DECIMALS)
        return self._machine | {"classificationProbability": probability}

    def _tags(self, label: str = "") -> str:
        tags = {"label": label.replace("|", "/"), "run": self._facts.run_id, "view": self._facts.view}
        return " | ".join(f"{name}:{value}" for name, value in tags.items() if value)


def write(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: CamtrapOptions) -> dict[str, Any]:
    """Write a package to the new folder `out`; return the numbers of its images and of those that are left out.

    Raises BadRequest for facts that are missing, with the way to state them.
    """
    package = read_package(options.package)
    places, events = Places(options.time_zone), Events()
    words = _Words(facts, package.scientific_names())
    deployments: dict[str, _Deployment] = {}
    written = 0
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:

        def table(name: str) -> csv.DictWriter[str]:
            file = files.enter_context((out / f"{name}.csv").open("w", encoding="utf-8", newline=""))
            rows = csv.DictWriter(file, COLUMNS[name], extrasaction="ignore")
            rows.writeheader()
            return rows

        media, observations = table("media"), table("observations")
        for image in images:
            placed = places.of(image)
            path = options.media_prefix + image.path
            if placed and not _PATH.fullmatch(path):
                places.refuse(FORBIDDEN, image)
            elif placed:
                deployment, moment = placed
                of = deployments.setdefault(deployment.deployment_id, _Deployment(deployment, moment))
                of.last = max(of.last, moment)
                of.doubtful = of.doubtful or bool(image.timestamp_flags)
                if image.event_id is not None:
                    count_image(events, image.event_id, image, deployment, moment)
                written += 1
                media.writerow(_media_row(image, deployment, moment, path))
                observations.writerows(_of_image(image, deployment, moment, words))
        left_out = places.require_all(options.leave_out)
        if not deployments:
            raise BadRequest("nothing was written: no image is left to export")
        lacking = _add_empty(deployments, facts.deployments, places)
        for (event_id, _), event in events.items():
            observations.writerows(_of_event(event_id, event, words))
        table("deployments").writerows(_deployment_row(deployments[key]) for key in sorted(deployments))
    facts_of = [each.facts for each in deployments.values()]
    ends = [(each.facts.end or each.last).date() for each in deployments.values()]
    days = (min(each.start for each in facts_of).date(), max(ends))
    stated = descriptor(package, facts_of, days, words.used, bool(events))
    if lacking:
        left_out = {"left_out": left_out.get("left_out", 0), "reasons": [*left_out.get("reasons", ()), *lacking]}
    stated["resight"] = {**facts.described(), "left_out": left_out.get("reasons", [])}
    text = json.dumps(stated, ensure_ascii=False, allow_nan=False, indent=2)
    (out / "datapackage.json").write_text(text + "\n", "utf-8")
    return {"images": written} | left_out


def _add_empty(deployments: dict[str, _Deployment], stated: Iterable[DeploymentFact], places: Places) -> list[str]:
    """Add the deployments without images, which are effort all the same; return those that lack a fact, and why.

    One that continues has no end, which the format requires, so it is not added.
    """
    reasons: list[str] = []
    for facts in stated:
        if facts.deployment_id in deployments or facts.end is None:
            continue
        if lacking := places.lacking(facts):
            reasons.append(f"deployment {facts.deployment_id} ({facts.camera_id}) without images and {lacking}")
        else:
            end = facts.end.replace(tzinfo=places.clock(facts))
            deployments[facts.deployment_id] = _Deployment(facts, end)
    return reasons


def _media_row(image: ImageRecord, deployment: DeploymentFact, moment: datetime, path: str) -> Row:
    has_people = any(kind_of(box.label) == "human" for box in image.detections)
    return {
        "mediaID": media_id(image),
        "deploymentID": deployment.deployment_id,
        "timestamp": iso(moment),
        "filePath": path,
        "filePublic": _bool(image.status in ("ok", "empty") and not has_people),
        "fileName": path.rpartition("/")[2],
        "mediaComments": f"sha256:{image.media_sha256}",
        "fileMediatype": image.media_type or mimetypes.guess_type(image.path)[0] or "image/jpeg",
    }


def media_id(image: ImageRecord) -> str:
    """Return the id of a file: copies of one content have different ones."""
    text = "\0".join((image.source_root, image.path, image.media_sha256))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _of_image(image: ImageRecord, deployment: DeploymentFact, moment: datetime, words: _Words) -> Iterator[Row]:
    """Yield the observations of an image: its boxes, or one that it is blank or was not classified."""
    media, timestamp = media_id(image), iso(moment)
    common: Row = {
        "deploymentID": deployment.deployment_id,
        "mediaID": media,
        "eventID": image.event_id,
        "eventStart": timestamp,
        "eventEnd": timestamp,
        "observationLevel": "media",
    }
    for index, box in enumerate(image.detections):
        yield {
            **common,
            **words.of_label(box.label),
            **_box(image, box),
            **words.classified(box.is_human, box.score, image.reviewed_at),
            "observationID": f"{media}_{f'added{index}' if box.rank is None else box.rank}",
            "count": 1,
        }
    if not image.detections:
        row = {"observationID": f"{media}_image", "observationComments": image.error_code}
        yield common | words.of_none(image.blank_by, image.reviewed_at) | row


def _of_event(event_id: str, event: EventSummary, words: _Words) -> Iterator[Row]:
    """Yield the observations of an event: each label with its MaxN, or one that it is blank or was not classified."""
    deployment_id = event.deployment.deployment_id
    common: Row = {
        "deploymentID": deployment_id,
        "eventID": event_id,
        "eventStart": iso(event.start),
        "eventEnd": iso(event.end),
        "observationLevel": "event",
    }
    for number, (label, count) in enumerate(sorted(event.labels.items())):
        yield {
            **common,
            **words.of_label(label),
            **words.classified(count.is_human, count.score),
            "observationID": f"{deployment_id}_{event_id}_{number}",
            "count": count.max_n,
        }
    if not event.labels:
        yield common | words.of_none(event.blank_by) | {"observationID": f"{deployment_id}_{event_id}_event"}


def _box(image: ImageRecord, box: BoxRecord) -> dict[str, float]:
    """Return the box in parts of the image, cut at its borders; nothing for a box without area."""
    if not image.width_px or not image.height_px:
        return {}
    sides = box.bbox(image.width_px, image.height_px, DECIMALS)
    return dict(zip(("bboxX", "bboxY", "bboxWidth", "bboxHeight"), sides, strict=True)) if min(sides[2:]) > 0 else {}


def _deployment_row(of: _Deployment) -> Row:
    facts, clock = of.facts, of.last.tzinfo
    end = facts.end.replace(tzinfo=clock) if facts.end else of.last
    ongoing = "" if facts.end else CONTINUES
    return {
        "deploymentID": facts.deployment_id,
        "locationID": facts.location,
        "locationName": facts.location,
        "latitude": facts.latitude,
        "longitude": facts.longitude,
        "deploymentStart": iso(facts.start.replace(tzinfo=clock)),
        "deploymentEnd": iso(end),
        "cameraID": facts.camera_id,
        "timestampIssues": _bool(of.doubtful),
        "deploymentComments": "; ".join(filter(None, (facts.notes, ongoing))),
    }


def _bool(value: bool) -> str:
    return "true" if value else "false"
