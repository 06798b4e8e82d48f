"""The report of a run: what its job logs last, and the command prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batch.planning.plan import Plan
from batch.runs.accounting import Counts
from batch.runs.progress import Progress


@dataclass(frozen=True, slots=True)
class RunReport:
    """Report of a finished run of a plan; `run_id` is None if nothing had to be run.

    `stages` and `rates` are as in `batch/runs/progress.py`, `more` has fields that only some runs have.
    """

    run_id: str | None
    plan: Plan
    counts: Counts
    seconds: float
    rates: Mapping[str, float | None]
    stages: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; the counts have the names of the pass."""
        work = self.plan.work
        return {
            "run_id": self.run_id,
            "accounting": self.counts.line(work.line),
            "counts": work.counts(self.counts, self.plan),
            **work.noted(self.counts),
            "seconds": round(self.seconds, 2),
            **rounded(self.rates),
            "bottleneck": self.stages.get("bottleneck"),
            "stages": self.stages,
            **work.reported(self.plan),
            **self.more,
        }


def report_of_plan(plan: Plan, counts: Counts, more: Mapping[str, Any]) -> RunReport:
    """Return the report of a plan without anything to do."""
    rates = Progress("", counts, 0.0, plan.work).rates()
    return RunReport(None, plan, counts, 0.0, rates, {}, more)


def rounded(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: value and round(value, 2) for name, value in figures.items()}
