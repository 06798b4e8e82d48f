"""Records of a load: a row per request, and summaries of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Records:
    """Columns with a row per request; times are seconds of time.perf_counter, the same clock in all processes."""

    due_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    status: NDArray[np.int64]
    version: NDArray[np.str_]
    detections: NDArray[np.int64]
    digest: NDArray[np.int64]  # of the detections as sent: equal bytes have equal digests
    cpu_s: float = 0.0

    def __len__(self) -> int:
        return len(self.due_s)

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """Latencies in ms of the responses with status 200."""
        good = self.status == 200
        return (self.done_s[good] - self.due_s[good]) * 1e3

    @property
    def samples_ms(self) -> list[float]:
        """Return each latency, ordered by due time."""
        order = np.argsort(self.due_s[self.status == 200], kind="stable")
        return np.round(self.latency_ms[order], 1).tolist()

    def where(self, mask: NDArray[np.bool_]) -> Records:
        columns = [getattr(self, name)[mask] for name in COLUMNS]
        return Records(*columns, cpu_s=self.cpu_s * float(mask.mean()) if len(mask) else 0.0)

    def between(self, start_s: float, end_s: float) -> Records:
        """Return the records that were due between two times."""
        return self.where((self.due_s >= start_s) & (self.due_s < end_s))

    def summary(self) -> dict[str, Any]:
        """Return counts, responses per second and milliseconds; `late_ms` is the delay of the generator itself."""
        if not len(self):
            return {"requests": 0, "failures": 0}
        good, taken = self.latency_ms, float(self.done_s.max() - self.due_s.min())
        statuses = Counter(self.status.tolist())
        ranks = (50, 90, 99, 100) if len(good) else ()
        return {
            "requests": len(self),
            "failures": len(self) - statuses[200],
            "statuses": {str(status): n for status, n in sorted(statuses.items())},
            "per_s": round(statuses[200] / taken, 2),
            **{f"p{rank}_ms": round(float(np.percentile(good, rank)), 2) for rank in ranks},
            "late_p99_ms": round(float(np.percentile(self.sent_s - self.due_s, 99)) * 1e3, 2),
            "generator_cpu_ms": round(self.cpu_s / len(self) * 1e3, 3),
        }


COLUMNS = ("due_s", "sent_s", "done_s", "status", "version", "detections", "digest")
