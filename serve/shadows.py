"""Candidates that see a share of live images beside the version that answers, and never answer.

A shadow goes through the bulk lane after the answer is out; when too many wait it is dropped and counted,
so that it can cost live requests nothing but processor time. What it fails at is counted too.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.names import VersionId
from model_store.shown import least_scores, shown
from serve.agreement import Agreement, compare

MOST_WAITING = 8
log = structlog.get_logger("resight.serve")


@dataclass
class Tally:
    """Of one pair of versions in this replica."""

    agreement: Agreement = field(default_factory=Agreement)
    dropped: int = 0
    failed: int = 0


class Shadows:
    """`detect(body, detector)` is the bulk lane's way to the candidate."""

    def __init__(self, detect: Callable[[bytes, LoadedDetector], Awaitable[Detections]]) -> None:
        self._detect = detect
        self._waiting: set[asyncio.Task[None]] = set()
        self.tallies: dict[tuple[VersionId, VersionId], Tally] = defaultdict(Tally)

    def show(
        self, body: bytes, active: LoadedDetector, seen: Detections, candidate: LoadedDetector
    ) -> None:
        """Begin to compare; returns at once."""
        tally = self.tallies[active.info.id, candidate.info.id]
        if len(self._waiting) >= MOST_WAITING:
            tally.dropped += 1
            return
        task = asyncio.create_task(self._compare(body, active, seen, candidate, tally))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def stop(self) -> None:
        for task in self._waiting:
            task.cancel()

    async def _compare(
        self,
        body: bytes,
        active: LoadedDetector,
        seen: Detections,
        candidate: LoadedDetector,
        tally: Tally,
    ) -> None:
        try:
            found = await self._detect(body, candidate)
        except Exception as error:  # a candidate may do whatever it does: nobody waits for it
            tally.failed += 1
            log.warning("shadow_failed", version=str(candidate.info.id), error=str(error)[:300])
            return
        tally.agreement = tally.agreement.plus(
            compare(
                _shown(seen, active),
                _shown(found, candidate),
                active.info.labels,
                candidate.info.labels,
            )
        )


def _shown(found: Detections, detector: LoadedDetector) -> Detections:
    """What a version shows by its own thresholds."""
    return shown(found, least_scores(detector.config))
