"""Check responses while an alias moves, and the memory of the replica, from records and without a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.records import Records


@dataclass(frozen=True)
class Swap:
    """A promotion, on the clock of the records."""

    version: str
    asked_s: float
    returned_s: float
    cold: bool  # the version was not resident

    @property
    def seconds(self) -> float:
        return self.returned_s - self.asked_s


def shares(loads: int, stretches: int) -> list[int]:
    """Split a number into shares that are as equal as possible."""
    return [loads // stretches + (i < loads % stretches) for i in range(stretches)]


def allowed_versions(swaps: Sequence[Swap], records: Records) -> list[set[str]]:
    """Return the allowed versions of each response: that of the last promotion that returned before the request was
    sent, and those requested since.

    `swaps` are in order; the first one ended before any request.
    """
    returned = np.array([swap.returned_s for swap in swaps])
    asked = np.array([swap.asked_s for swap in swaps])
    first = np.searchsorted(returned, records.sent_s, side="right") - 1
    end = np.maximum(np.searchsorted(asked, records.done_s, side="left"), first + 1)
    return [{s.version for s in swaps[a:b]} for a, b in zip(first, end, strict=True)]


def late(swaps: Sequence[Swap], records: Records) -> dict[str, int]:
    """Count successful responses of versions that are not allowed, and those with a single allowed version."""
    allowed = allowed_versions(swaps, records)
    known = zip(records.version, records.status, allowed, strict=True)
    wrongly = sum(bool(status == 200) and version not in choice for version, status, choice in known)
    return {"late": wrongly, "one_version_allowed": sum(len(choice) == 1 for choice in allowed)}


def wrong(records: Records, detections: Mapping[str, int]) -> int:
    """Count successful responses with a number of detections that does not belong to their version."""
    known = zip(records.version, records.status, records.detections, strict=True)
    return sum(bool(status == 200 and detections.get(str(v)) != n) for v, status, n in known)


def parts(
    records: Records, swaps: Sequence[Swap], quiet: Sequence[tuple[float, float]], end_s: float
) -> dict[str, NDArray[np.float64]]:
    """Return latencies in ms of requests due in quiet periods, between them, and during each kind of swap."""
    ends = [*(start for start, _ in quiet[1:]), end_s]
    times = {
        "steady": quiet,
        "swapping": [(stop, end) for (_, stop), end in zip(quiet, ends, strict=True)],
        "cold": [(s.asked_s, s.returned_s) for s in swaps if s.cold],
        "flip": [(s.asked_s, s.returned_s) for s in swaps if not s.cold],
    }
    found = {name: [records.between(*one).latency_ms for one in t] for name, t in times.items()}
    return {name: np.concatenate(values or [np.zeros(0)]) for name, values in found.items()}


def ranks(values: Sequence[float] | NDArray[np.float64], digits: int = 2) -> dict[str, Any]:
    """Return percentiles, the maximum and the count."""
    if not len(values):
        return {"n": 0}
    of = {f"p{rank}": round(float(np.percentile(values, rank)), digits) for rank in (50, 90, 99)}
    return {"n": len(values), **of, "max": round(float(np.max(values)), digits)}


def memory(rss: Mapping[str, Sequence[float]], warm_up: int) -> dict[str, Any]:
    """Summarise resident MiB after releases: end over start, slope, and the leaking control."""
    released = np.array(rss["released"][warm_up:] or rss["released"])
    fifth = max(1, len(released) // 5)
    start, end = float(np.median(released[:fifth])), float(np.median(released[-fifth:]))
    slope = float(np.polyfit(np.arange(len(released)), released, 1)[0]) if len(released) > 1 else 0
    loads = zip(rss["released"][:-1], rss["loaded"][1:], strict=True)
    version = float(np.median([after - before for before, after in loads] or [0.0]))
    return {
        "start_mib": round(start, 1),
        "end_mib": round(end, 1),
        "end_over_start": round(end / start, 4),
        "slope_mib_per_cycle": round(slope, 3),
        "a_version_mib": round(version, 1),
        "control_never_released": round((start + version * (len(released) - 1)) / start, 4),
    }


def timeline(records: Records, swaps: Sequence[Swap]) -> dict[str, list[float]]:
    """Return the latency of each second, and the times of promotions in seconds of the run."""
    start_s = float(records.due_s.min())
    good = records.where(records.status == 200)
    second = (good.due_s - start_s).astype(int)
    times = [float(s) for s in np.unique(second)]
    return {
        "s": times,
        "p50_ms": [round(float(np.median(good.latency_ms[second == s])), 1) for s in times],
        "max_ms": [round(float(good.latency_ms[second == s].max()), 1) for s in times],
        "flips_s": [round(s.asked_s - start_s, 2) for s in swaps if not s.cold],
        "cold_from_s": [round(s.asked_s - start_s, 2) for s in swaps if s.cold],
        "cold_to_s": [round(s.returned_s - start_s, 2) for s in swaps if s.cold],
    }
