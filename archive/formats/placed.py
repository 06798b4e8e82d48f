"""Give each image its place and its time with a zone, from its deployment; formats for science require both.

Nothing is guessed: images without a fact are counted by reason, and `require_all` refuses them with what to state.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from archive.formats.local_times import clock_of, with_offset
from archive.formats.records import DeploymentFact, ImageRecord
from model_store.errors import BadRequest

ADD = "state them with 'resight deployments add'"
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Placed:
    """An image with its deployment, its corrected local time and the offset of its clock."""

    image: ImageRecord
    deployment: DeploymentFact
    moment: datetime
    zone: tzinfo
    latitude: float
    longitude: float

    @property
    def timestamp(self) -> str:
        return with_offset(self.moment, self.zone)


@dataclass
class Places:
    """Places of images. `time_zone` applies to deployments without one."""

    time_zone: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def of(self, image: ImageRecord) -> Placed | None:
        """Return the place of an image; if a fact is missing, count the reason and return None."""
        facts, camera = image.deployment, image.camera_id or "no camera"
        zone = facts and (facts.time_zone or self.time_zone)
        if image.captured_at_corrected is None:
            self.refuse(f"images of {camera} have no time", image)
        elif facts is None:
            self.refuse(f"images of {camera} belong to no deployment: {ADD}", image)
        elif not zone:
            what = f"images of deployment {facts.deployment_id} ({camera}) have no time zone"
            self.refuse(f"{what}: {ADD} (column time_zone), or with --set time_zone=Europe/Berlin", image)
        elif facts.latitude is None or facts.longitude is None:
            what = f"images of deployment {facts.deployment_id} ({camera}) have no coordinates"
            self.refuse(f"{what}: {ADD} (columns latitude, longitude)", image)
        else:
            moment, clock = image.captured_at_corrected, clock_of(zone, facts.start)
            return Placed(image, facts, moment, clock, facts.latitude, facts.longitude)
        return None

    def refuse(self, reason: str, image: ImageRecord) -> None:
        """Count an image that the format cannot represent."""
        self.counts[reason] += 1
        self.examples.setdefault(reason, image.path)

    def require_all(self, leave_out: bool) -> list[str]:
        """Return the reasons for images that are left out. Raises BadRequest with them, unless `leave_out`."""
        lines = [f"{n} {why} (such as {self.examples[why]})" for why, n in self.counts.most_common()]
        more = [f"and {len(lines) - SHOWN} more reasons"] if len(lines) > SHOWN else []
        if lines and not leave_out:
            ways = "nothing was written: state these facts, or leave the images out with --set leave_out=true"
            raise BadRequest("\n".join([ways, *lines[:SHOWN], *more]))
        return lines
