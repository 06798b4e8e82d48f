"""Write occurrences of Darwin Core (https://dwc.tdwg.org/terms/) as one CSV file, for GBIF and other portals.

A row is a label of animals in an event, with its MaxN; an image without an event is a separate one. Rows of
people and vehicles are left out. Places and time zones are stated by people, as for Camtrap DP.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from archive.catalogue.deployments import TimeZone
from archive.formats.camtrap_package import read_package
from archive.formats.event_counts import Event, EventCounts, LabelCount
from archive.formats.label_kinds import kind_of
from archive.formats.local_times import with_offset
from archive.formats.placed import Placed, Places
from archive.formats.records import Facts, ImageRecord
from model_store.frozen import Frozen

COLUMNS = (
    *("occurrenceID", "basisOfRecord", "occurrenceStatus", "eventID", "eventDate", "locality"),
    *("decimalLatitude", "decimalLongitude", "geodeticDatum", "individualCount"),
    *("scientificName", "vernacularName", "identifiedBy", "identificationVerificationStatus"),
    *("identificationRemarks", "associatedMedia"),
)


class DarwinCoreOptions(Frozen):
    """Options of the format. The entries of `taxonomic` in `package` give the scientific names."""

    package: Path | None = None
    time_zone: TimeZone | None = None
    leave_out: bool = False


def write(images: Iterable[ImageRecord], facts: Facts, out: Path, options: DarwinCoreOptions) -> None:
    """Write the occurrences. Raises BadRequest for facts that are missing, with the way to state them."""
    names = read_package(options.package).scientific_names() if options.package else {}
    places, events, deployments = Places(options.time_zone), EventCounts(), dict[str, Placed]()
    written: set[bytes] = set()  # contents of images without an event: copies are not counted again
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for image in images:
            placed = places.of(image) if image.detections else None
            if placed is not None:
                deployments.setdefault(placed.deployment.deployment_id, placed)
                alone = EventCounts() if image.event_id is None else events
                named = image if image.event_id else replace(image, event_id=image.media_sha256)
                alone.add(named, placed.deployment.deployment_id, placed.moment)
                content = bytes.fromhex(image.media_sha256)
                if alone is not events and content not in written:
                    written.add(content)
                    table.writerows(_rows(alone, deployments, facts, names))
        table.writerows(_rows(events, deployments, facts, names))
    places.require_all(options.leave_out)


def _rows(
    counts: EventCounts, deployments: dict[str, Placed], facts: Facts, names: dict[str, str]
) -> Iterator[dict[str, Any]]:
    for (event_id, key), event in counts.events.items():
        common = _of_event(event_id, event, deployments[key])
        for label, count in sorted(event.labels.items()):
            if kind_of(label) == "animal":
                name = names.get(label.casefold(), "")
                yield common | _of_label(key, event_id, label, count, facts, name)


def _of_event(event_id: str, event: Event, place: Placed) -> dict[str, Any]:
    moments = dict.fromkeys(with_offset(moment, place.zone) for moment in (event.start, event.end))
    return {
        "eventID": event_id,
        "eventDate": "/".join(moments),
        "locality": place.deployment.location,
        "decimalLatitude": place.latitude,
        "decimalLongitude": place.longitude,
        "geodeticDatum": "EPSG:4326",
        "occurrenceStatus": "present",
        "associatedMedia": event.path,
    }


def _of_label(deployment: str, event_id: str, label: str, count: LabelCount, facts: Facts, name: str) -> dict[str, Any]:
    by_person = {"identifiedBy": "human", "identificationVerificationStatus": "verified"}
    by_model = {
        "identifiedBy": facts.model,
        "identificationVerificationStatus": "unverified",
        "identificationRemarks": f"score {count.score:.3f}; run {facts.run_id}; view {facts.view}",
    }
    return {
        "occurrenceID": f"{deployment}:{event_id}:{label}",
        "basisOfRecord": "MachineObservation",
        "individualCount": count.max_n,
        "scientificName": name,
        "vernacularName": label,
        **(by_person if count.is_human else by_model),
    }
