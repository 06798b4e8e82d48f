"""Read from the Delta log when the first rows of a table were committed."""

from __future__ import annotations

import json
from pathlib import Path


def first_commit(table: Path) -> float:
    """Return the time in seconds since 1970. Raises SystemExit if the table is empty."""
    for entry in sorted((table / "_delta_log").glob("*.json")):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        if any("add" in action for action in actions):
            info = next(action["commitInfo"] for action in actions if "commitInfo" in action)
            return float(info["timestamp"]) / 1e3
    raise SystemExit(f"no rows in {table}")
