"""Images of two deployments for tests of formats: boxes of people and of a model, a blank and a failed image."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from archive.formats.records import BoxRecord, DeploymentFact, ExportLineage, ImageRecord

START = datetime(2026, 5, 1, 9, 30)
NORTH = DeploymentFact(
    deployment_id="d1",
    camera_id="north",
    location="Oak hill",
    latitude=52.51,
    longitude=13.4,
    start=START + timedelta(hours=1),
    end=datetime(2026, 6, 12, 17),
    time_zone="Europe/Berlin",
    notes="new batteries",
)
FACTS = ExportLineage(
    view="production 3",
    run_id="r1",
    model="deer@2",
    weights_sha256="f" * 64,
    sealed_at=datetime(2026, 7, 1, 12, tzinfo=UTC),
    labels=("deer", "person"),
)
FOX = BoxRecord("fox", 0.875, -0.25, 10.0, 60.5, 50.25, rank=0)
DEER = BoxRecord("deer", 0.5, 100.0, 20.0, 160.0, 80.0, rank=1)
ADDED = BoxRecord("deer", None, 10.0, 60.0, 40.0, 99.5, is_human=True, said_by="human")


def image(number: int, *boxes: BoxRecord, **more: Any) -> ImageRecord:
    """Return image `number`, one second after the one before it."""
    row: dict[str, Any] = {
        "source_root": "/archive",
        "path": f"north/IMG_{number:04}.JPG",
        "media_sha256": f"{number:064x}",
        "width_px": 200,
        "height_px": 100,
        "captured_at_local": START + timedelta(seconds=number),
        "camera_id": "north",
        "event_id": "e1",
        "status": "ok" if boxes else "empty",
        "blank_by": None if boxes else "machine",
        "detections": boxes,
        "deployment": NORTH,
    }
    row |= more
    taken = row["captured_at_local"]
    hour = timedelta(hours=1 if row["deployment"] else 0)  # the clock of the camera is slow
    return ImageRecord(**{"captured_at_corrected": taken and taken + hour, **row})


def burst() -> list[ImageRecord]:
    person = BoxRecord("person", 0.75, 0.0, 0.0, 200.0, 100.0, rank=0)
    return [
        image(1, FOX, DEER, ADDED, reviewed_at=datetime(2026, 7, 2, 14, tzinfo=timezone(timedelta(hours=2)))),
        image(2, DEER),
        image(3, person),
        image(4, event_id="e2"),
        image(5, status="failed", error_code="truncated", event_id="e3", width_px=None, height_px=None, blank_by=None),
    ]
