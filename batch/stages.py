"""Where the time of a run went: read, decode, queue, inference, commit, and which of them bounds it.

The reading threads of a run are busy with reading, with decoding, or wait for a replica; that wait is shared
out to queue and inference as the replicas measured them. Commits happen beside, in the driver.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

COMMIT_BOUND_FRAC = 0.5
"""A driver that commits for more of the time than this holds up the rest."""
EXTRA = pa.schema([("replaces", pa.bool_()), ("waited_ms", pa.float32()), ("node", pa.string())])
"""What the stage tells the driver with each row of `results`, and the table does not keep: whether there is a
row that it replaces, its share of the wait for a replica, and the node that decoded it."""


@dataclass
class Stages:
    """Sums over the rows that have arrived: milliseconds of threads, images by node."""

    ms: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """`rows` have the columns of `results` and EXTRA."""
        for name in (
            "read_ms",
            "decode_ms",
            "waited_ms",
            "queue_ms",
            "inference_ms",
            "postprocess_ms",
        ):
            self.ms[name] = self.ms.get(name, 0.0) + float(pc.sum(rows[name]).as_py() or 0.0)
        for entry in rows["node"].value_counts().to_pylist():
            node = str(entry["values"])
            self.nodes[node] = self.nodes.get(node, 0) + int(entry["counts"])

    def report(self, wall_s: float, commit_s: float, threads: int) -> dict[str, Any]:
        """Thread seconds by stage, shares of them, the bottleneck, and images by decoding node."""
        seconds = _seconds(self.ms) | {"commit_s": commit_s}
        return {
            **{name: round(value, 3) for name, value in seconds.items()},
            "wall_s": round(wall_s, 3),
            "threads": threads,
            "bottleneck": bottleneck(seconds, wall_s),
            "images_by_node": dict(sorted(self.nodes.items())),
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
    """`commit` when the driver was busy with it for most of the time; else where the threads were: `read`,
    `decode`, or `inference` (its queue included, which is long because it is what bounds). None for nothing.
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
