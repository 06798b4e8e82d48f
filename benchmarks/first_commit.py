"""When the first rows of a table were there for all to see: Delta's own log says it."""

from __future__ import annotations

import json
from pathlib import Path


def first_commit(table: Path) -> float:
    """Seconds since 1970. Raises SystemExit when there are no rows."""
    for entry in sorted((table / "_delta_log").glob("*.json")):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        if any("add" in action for action in actions):
            info = next(action["commitInfo"] for action in actions if "commitInfo" in action)
            return float(info["timestamp"]) / 1e3
    raise SystemExit(f"no rows in {table}")
