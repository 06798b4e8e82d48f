"""Write occurrences of Darwin Core (https://dwc.tdwg.org/terms/) as one CSV file, for GBIF and other portals.

A row is a label of animals in an event, with its MaxN; an image without an event is a separate one. Rows of
people and vehicles are left out. Places and time zones are stated by people, as for Camtrap DP.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from archive.formats.camtrap_package import read_package
from archive.formats.placed import Events, PlacedOptions, Places, count_image, iso, kind_of
from archive.formats.records import ExportLineage, ImageRecord

COLUMNS = (
    *("occurrenceID", "basisOfRecord", "occurrenceStatus", "eventID", "eventDate", "locality"),
    *("decimalLatitude", "decimalLongitude", "geodeticDatum", "individualCount"),
    *("scientificName", "vernacularName", "identifiedBy", "identificationVerificationStatus"),
    *("identificationRemarks", "associatedMedia"),
)


def write(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: PlacedOptions) -> dict[str, Any]:
    """Write the occurrences; return the images that are left out. Raises BadRequest for facts that are missing."""
    names = read_package(options.package).scientific_names() if options.package else {}
    places, events = Places(options.time_zone), Events()
    written: set[bytes] = set()  # contents of images without an event: copies are not counted again
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for image in images:
            placed = places.of(image) if image.detections else None
            if placed is None:
                continue
            if image.event_id is not None:
                count_image(events, image.event_id, image, *placed)
                continue
            content = bytes.fromhex(image.media_sha256)
            if content not in written:
                written.add(content)
                alone = Events()
                count_image(alone, image.media_sha256, image, *placed)
                table.writerows(_rows(alone, facts, names))
        table.writerows(_rows(events, facts, names))
    return places.require_all(options.leave_out)


def _rows(events: Events, facts: ExportLineage, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for (event_id, deployment_id), event in events.items():
        for label, count in sorted(event.labels.items()):
            if kind_of(label) != "animal":
                continue
            row = {
                "occurrenceID": f"{deployment_id}:{event_id}:{label}",
                "basisOfRecord": "MachineObservation",
                "occurrenceStatus": "present",
                "eventID": event_id,
                "eventDate": "/".join(dict.fromkeys((iso(event.start), iso(event.end)))),
                "locality": event.deployment.location,
                "decimalLatitude": event.deployment.latitude,
                "decimalLongitude": event.deployment.longitude,
                "geodeticDatum": "EPSG:4326",
                "individualCount": count.max_n,
                "scientificName": names.get(label.casefold(), ""),
                "vernacularName": label,
                "identifiedBy": "human" if count.is_human else facts.model,
                "identificationVerificationStatus": "verified" if count.is_human else "unverified",
                "associatedMedia": event.path,
            }
            if not count.is_human:
                row["identificationRemarks"] = f"score {count.score:.3f}; run {facts.run_id}; view {facts.view}"
            yield row
