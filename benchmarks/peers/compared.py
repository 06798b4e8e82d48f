"""What the comparisons with peers have in common: environments that may fail, and the bounds of a result."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from benchmarks.peers.environments import environment

FAILURES = (RuntimeError, OSError, ValueError, CalledProcessError)
Row = dict[str, Any]
Bound = tuple[str, Any, str, bool]
"""Name, value, bound, whether it holds: as `harness.verdicts` takes them."""


def made(folder: Path, name: str, failed: list[Row]) -> bool:
    """The peer's environment, before any clock runs; what went wrong is added to `failed`."""
    try:
        environment(folder)
    except FAILURES as error:
        failed.append({"name": name, "round": None, "error": str(error)[-2000:]})
        return False
    return True


def bounds(result: Row, own: Sequence[Bound]) -> list[Bound]:
    """Rates at least, other figures at most those of every peer; each control slower than all; then `own`, and that
    nothing failed. Medians are looked at and not held to anything.
    """
    controls = [name for name, about in result["subjects"].items() if about.get("control")]
    rows: list[Bound] = []
    for name, figures in result["ratios"].items():
        for figure, values in figures.items():
            if name in controls or "p50" in figure:
                continue
            value, more = statistics.median(values), figure.endswith("per_s")
            told = f"{value:.3f} ({min(values):.3f} to {max(values):.3f})"
            bound, holds = ("≥ 1.0", value >= 1) if more else ("≤ 1.0", value <= 1)
            rows.append((f"{figure} / {name}", told, bound, holds))
    rates = {row["name"]: row["per_s"] for row in result["cases"]}
    least = min(rate for name, rate in rates.items() if name not in controls)
    rows += [("control: slower than all", rates[name], f"< {least}", rates[name] < least) for name in controls]
    lost = len(result["failed"])
    return [*rows, *own, ("peers and turns that failed", lost, "0", lost == 0)]
