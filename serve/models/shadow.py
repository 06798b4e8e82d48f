"""Run candidate versions on a share of live images and measure their agreement with the version that answers.

active, candidate: Detections of the same image, image px --compare--> Agreement

The candidate runs in the bulk lane once the answer is computed. If too many images wait for it, further ones are
dropped and counted. So a shadow costs live requests only processor time. Its failures are counted too.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
import structlog

from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.names import VersionId
from model_store.transform.nms import iou
from model_store.transform.thresholds import least_scores, shown

MATCH_IOU = 0.5
MAX_WAITING = 8
"""Maximum number of images that wait for shadows in a replica."""
log = structlog.get_logger("resight.serve")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Sums over images. Score shifts are candidate minus active, over matched boxes."""

    images: int = 0
    matched: int = 0
    label_flips: int = 0
    only_active: int = 0
    only_candidate: int = 0
    score_shift: float = 0.0
    score_shift_abs: float = 0.0

    def plus(self, other: Agreement) -> Agreement:
        return Agreement(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def compare(
    active: Detections, candidate: Detections, active_labels: Sequence[str], candidate_labels: Sequence[str]
) -> Agreement:
    """Compare the detections of one image; pass only those above each version's display thresholds.

    Boxes are matched one to one, best IoU first, if their IoU is at least 0.5. Labels are ignored in the matching.
    """
    pairs = _pairs(active, candidate)
    shifts = [float(candidate.scores[j]) - float(active.scores[i]) for i, j in pairs]
    flips = sum(active_labels[active.class_ids[i]] != candidate_labels[candidate.class_ids[j]] for i, j in pairs)
    return Agreement(
        images=1,
        matched=len(pairs),
        label_flips=flips,
        only_active=len(active) - len(pairs),
        only_candidate=len(candidate) - len(pairs),
        score_shift=sum(shifts),
        score_shift_abs=sum(map(abs, shifts)),
    )


def _pairs(active: Detections, candidate: Detections) -> list[tuple[int, int]]:
    """Return pairs of matching positions, best IoU first; among equal IoUs the higher-ranked detection comes first."""
    overlap = iou(active.boxes_xyxy[:, np.newaxis].astype(np.float64), candidate.boxes_xyxy.astype(np.float64))
    order = np.argsort(-overlap, axis=None, kind="stable")
    rows: set[int] = set()
    columns: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for flat in order.tolist():
        i, j = divmod(flat, overlap.shape[1])
        if overlap[i, j] < MATCH_IOU:
            break
        if i not in rows and j not in columns:
            rows.add(i)
            columns.add(j)
            pairs.append((i, j))
    return pairs


@dataclass
class ShadowCounts:
    """Counts for one pair of versions in this replica."""

    agreement: Agreement = field(default_factory=Agreement)
    dropped: int = 0
    failed: int = 0


class Shadows:
    """Comparisons of one replica. `detect(body, detector)` runs a candidate in the bulk lane."""

    def __init__(self, detect: Callable[[bytes, LoadedDetector], Awaitable[Detections]]) -> None:
        self._detect = detect
        self._waiting: set[asyncio.Task[None]] = set()
        self.tallies: dict[tuple[VersionId, VersionId], ShadowCounts] = defaultdict(ShadowCounts)

    def start(self, body: bytes, active: LoadedDetector, seen: Detections, candidate: LoadedDetector) -> None:
        """Start a comparison in the background, or count it as dropped."""
        counts = self.tallies[active.info.id, candidate.info.id]
        if len(self._waiting) >= MAX_WAITING:
            counts.dropped += 1
            return
        task = asyncio.create_task(self._compare(body, active, seen, candidate, counts))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def stop(self) -> None:
        for task in self._waiting:
            task.cancel()

    async def _compare(
        self, body: bytes, active: LoadedDetector, seen: Detections, candidate: LoadedDetector, counts: ShadowCounts
    ) -> None:
        try:
            found = await self._detect(body, candidate)
        except Exception as error:  # no request waits for the candidate
            counts.failed += 1
            log.warning("shadow_failed", version=str(candidate.info.id), error=str(error)[:300])
            return
        both = shown(seen, least_scores(active.config)), shown(found, least_scores(candidate.config))
        counts.agreement = counts.agreement.plus(compare(*both, active.info.labels, candidate.info.labels))
