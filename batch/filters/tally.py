"""What a filter run counts: targets, each once, however the work is cut into parts."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """Of targets, each once however the work is cut.

    checked         detections (images, where the filter groups images) that the filter was asked about
    flagged         of them, that it says something about
    grouped         of the flagged, that belong to a group
    changed         whose label, score or being shown is another one after this run than before
    skipped_human   flagged ones that a person has spoken of: nothing changes
    skipped_invalid whose figures the filter cannot use
    added           rows added, those included that withdraw
    withdrawn       of the added, those that take back what the layer said before
    """

    checked: int = 0
    flagged: int = 0
    grouped: int = 0
    changed: int = 0
    skipped_human: int = 0
    skipped_invalid: int = 0
    added: int = 0
    withdrawn: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def plus(self, other: Tally) -> Tally:
        mine, more = asdict(self), asdict(other)
        return Tally(**{name: mine[name] + more[name] for name in mine})
