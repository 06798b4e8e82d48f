"""Log the progress of a run, one JSON line per commit interval, and report how it spent its time.

The rate is over all images since the start of the pipeline: it excludes planning and loading of the model, and includes
the start of processes. `steady_rate` excludes the first and the last tenth of the images: start-up and drain.

The reading threads of a run read, decode, or wait for a replica; that wait is divided into queue and inference as
measured by the replicas. Commits run concurrently, in the driver.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from batch.planning.passes import Pass
from batch.runs.accounting import Counts

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false


COMMIT_BOUND_FRAC = 0.5
"""Share of the time from which commits of the driver are the bottleneck."""
EXTRA = pa.schema([("replaces", pa.bool_()), ("waited_ms", pa.float32()), ("node", pa.string())])
"""Columns that the stage adds to each row of `results` for the driver, not for the table: whether the row replaces
another, its share of the wait for a replica, and the node that decoded it."""


@dataclass
class TimeByStage:
    """Sums over the rows that have arrived: thread time in ms by stage, images by node."""

    ms: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """Add rows with the columns of `results` and EXTRA."""
        for name in ("read_ms", "decode_ms", "waited_ms", "queue_ms", "inference_ms", "postprocess_ms"):
            self.ms[name] = self.ms.get(name, 0.0) + float(pc.sum(rows[name]).as_py() or 0.0)
        for entry in rows["node"].value_counts().to_pylist():
            node = str(entry["values"])
            self.nodes[node] = self.nodes.get(node, 0) + int(entry["counts"])

    def report(self, wall_s: float, commit_s: float, threads: int, by_node: str = "images_by_node") -> dict[str, Any]:
        """Return seconds by stage and in all, the bottleneck, and `by_node`: rows by decoding node."""
        seconds = _seconds(self.ms) | {"commit_s": commit_s}
        return {
            **{name: round(value, 3) for name, value in seconds.items()},
            "wall_s": round(wall_s, 3),
            "threads": threads,
            "bottleneck": bottleneck(seconds, wall_s),
            by_node: dict(sorted(self.nodes.items())),
        }


def _seconds(ms: Mapping[str, float]) -> dict[str, float]:
    service = ms.get("inference_ms", 0.0) + ms.get("postprocess_ms", 0.0)
    inside = service + ms.get("queue_ms", 0.0)
    waited_s = ms.get("waited_ms", 0.0) / 1e3
    queue_s = waited_s * ms.get("queue_ms", 0.0) / inside if inside else 0.0
    return {
        "read_s": ms.get("read_ms", 0.0) / 1e3,
        "decode_s": ms.get("decode_ms", 0.0) / 1e3,
        "queue_s": queue_s,
        "inference_s": waited_s - queue_s,
    }


def bottleneck(seconds: Mapping[str, float], wall_s: float) -> str | None:
    """Return `commit` if the driver committed for most of the time; else the stage with the most thread time.

    That is `read`, `decode`, or `inference`, including its queue, which is long if inference is the bottleneck. None
    without any thread time.
    """
    if wall_s > 0 and seconds["commit_s"] > COMMIT_BOUND_FRAC * wall_s:
        return "commit"
    threads = {
        "read": seconds["read_s"],
        "decode": seconds["decode_s"],
        "inference": seconds["queue_s"] + seconds["inference_s"],
    }
    longest = max(threads, key=lambda name: threads[name])
    return longest if threads[longest] > 0 else None


log = structlog.get_logger("resight.run")

Arrival = tuple[float, int]
"""Seconds since the start of the run, images in all."""


class Progress:
    """Counts and rate of a pass, in its units. Times are seconds since construction, at the start of the run."""

    def __init__(self, run_id: str, counts: Counts, every_s: float, work: Pass) -> None:
        self.counts, self._work = counts, work
        self._run_id, self._every_s = run_id, every_s
        self._started_s = time.monotonic()
        self._began_s = 0.0
        self._logged_s = 0.0
        self._last: Arrival = (0.0, 0)
        self._inside: list[Arrival] = []
        self._arrivals = 0

    def begin(self) -> None:
        """Start measuring the rate: the pipeline starts now."""
        self._began_s = self.elapsed_s()

    def arrived(self, counts: Counts) -> None:
        self.counts = counts
        now_s = self.elapsed_s()
        self._last = now_s, counts.inferred
        self._arrivals += 1
        todo = counts.requested - counts.reused
        if 0.1 * todo <= counts.inferred <= 0.9 * todo:
            self._inside = [*self._inside[:1], self._last]
        if now_s - self._logged_s >= self._every_s:
            self._logged_s = now_s
            self.log_progress()

    def log_progress(self) -> None:
        rate = self.rate()
        todo = self.counts.requested - self.counts.reused - self.counts.inferred
        log.info(
            self._work.event,
            run_id=self._run_id,
            **self._work.counts(self.counts),
            **{f"{self._work.units}_per_s": round(rate, 2)},
            eta_s=round(todo / rate) if rate else None,
        )

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def rate(self) -> float:
        """Return images per second from the start of the pipeline to the last arrival; 0 before any."""
        last_s, last = self._last
        worked_s = last_s - self._began_s
        return last / worked_s if worked_s > 0 else 0.0

    def rates(self) -> dict[str, float | None]:
        """Return the rates of a report; only those of images have a steady one."""
        rates: dict[str, float | None] = {f"{self._work.units}_per_s": self.rate()}
        if self._work.units == "images":
            rates["steady_images_per_s"] = self.steady_rate()
        return rates

    def steady_rate(self) -> float | None:
        """Return images per second between 10 % and 90 % of the images; None if the run is too short."""
        if self._arrivals < 10 or len(self._inside) < 2:
            return None
        (first_s, first), (last_s, last) = self._inside
        return (last - first) / (last_s - first_s) if last_s > first_s else None
