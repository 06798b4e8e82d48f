"""Write one report of all benchmarks: outcomes -> index.html with embedded pictures, and report.json.

Missed bounds come first. Each figure is compared with the result before it: of the kept ones in results/, the newest of
the same script and subject with the most equal settings. The tables are those of the scripts; all other data (raw
samples, configuration, versions) are in report.json.
"""

from __future__ import annotations

import ast
import base64
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serve.pages import render

HERE = Path(__file__).resolve().parent
SUBJECT = ("size", "jpeg_shrink", "here", "model", "detections", "host", "store")
"""Settings that are equal in compared results, as far as both have them; others, such as `rounds`, may differ."""
WORSE = 0.1
"""Share by which a figure must be worse than before to be marked. Rounds on one machine differ by as much."""


def write_report(folder: Path, commit: str, outcomes: Sequence[dict[str, Any]]) -> Path:
    """Write the report and return its page; create the folder and overwrite an earlier report."""
    folder.mkdir(parents=True, exist_ok=True)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    whole = {"at": at, "commit": commit, "benchmarks": list(outcomes)}
    (folder / "report.json").write_text(json.dumps(whole) + "\n")
    page = folder / "index.html"
    page.write_text(html(at, commit, outcomes))
    return page


def html(at: str, commit: str, outcomes: Sequence[dict[str, Any]]) -> str:
    results = [one["result"] for one in outcomes if "result" in one]
    machine = results[0]["machine"] if results else {}
    words = f"{at}, commit {commit}, {machine.get('cores', '?')} cores, {machine.get('cpu', '')}"
    return render(
        "benchmarks/report.html",
        title="Resight, measured",
        words=words,
        bounds=bounds(outcomes),
        changes=changes(outcomes),
        outcomes=outcomes,
        purpose=lambda script: first_line(HERE / f"{script}.py"),
        picture=picture,
    )


def bounds(outcomes: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return command, name, value, bound and result of every bound of every benchmark, missed bounds first."""
    rows = [
        (one["command"], name, _short(found["value"]), found["bound"], found["holds"])
        for one in outcomes
        for name, found in one.get("result", {}).get("verdicts", {}).items()
    ]
    rows += [(one["command"], "it runs to its end", "", "", False) for one in outcomes if "failed" in one]
    return sorted(rows, key=lambda row: row[4])


def changes(outcomes: Sequence[dict[str, Any]], kept: Path = HERE / "results") -> list[dict[str, Any]]:
    """Return each bounded figure with that of the result before it, the worst change first.

    A change is the ratio of a figure to the one before, over 1 where it is better. Controls, figures without a
    direction and figures that were or are 0 are left out.
    """
    rows: list[dict[str, Any]] = []
    for one in outcomes:
        result = one.get("result", {})
        before = result_before(result, kept)
        for name, found in result.get("verdicts", {}).items():
            earlier = before.get("verdicts", {}).get(name, {})
            change = _change(found["bound"], _number(found["value"]), _number(earlier.get("value")))
            if change is None or name.startswith("control"):
                continue
            row = {"name": name, "value": _short(found["value"]), "before": _short(earlier["value"]), "change": change}
            row |= {"worse": change < 1 - WORSE, "command": one["command"]}
            rows.append(row | {"when": _when(result, before)})
    return sorted(rows, key=lambda row: row["change"])


def result_before(result: dict[str, Any], kept: Path) -> dict[str, Any]:
    """Return the newest result of the script and its SUBJECT with the most equal settings, empty if there is none."""
    config = result.get("config", {})

    def is_same(other: dict[str, Any]) -> bool:
        both = [name for name in SUBJECT if name in config and name in other["config"]]
        return other["at"] < result["at"] and all(config[name] == other["config"][name] for name in both)

    def fitness(other: dict[str, Any]) -> tuple[int, str]:
        equal = sum(other["config"].get(name) == value for name, value in config.items())
        return equal, other["at"]

    found = [json.loads(file.read_text()) for file in kept.glob(f"{result.get('benchmark')}-*.json")]
    return max(filter(is_same, found), key=fitness, default={})


def _when(result: dict[str, Any], before: dict[str, Any]) -> str:
    """Return date and commit of the result before, and what differed: processor and settings."""
    settings = result["config"].items()
    other = [f"{name} {before['config'].get(name)}" for name, value in settings if before["config"].get(name) != value]
    if before["machine"]["cpu"] != result["machine"]["cpu"]:
        other.insert(0, before["machine"]["cpu"])
    return ", ".join([before["at"][:10], before["commit"], *other])


def _change(bound: str, value: float | None, before: float | None) -> float | None:
    if not value or not before or bound[:1] not in "≥>≤<":
        return None
    return value / before if bound[0] in "≥>" else before / value


def _number(value: object) -> float | None:
    """Return a value that is a number, or the one at the start of a text such as "0.94 (0.86 to 1.02)"."""
    found = re.match(r"-?[0-9.]+(?=\s|$)", str(value))
    return float(found[0]) if found else None


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def first_line(script: Path) -> str:
    """Return the first line of the docstring of a benchmark."""
    words = ast.get_docstring(ast.parse(script.read_text())) if script.exists() else None
    return (words or "").partition("\n")[0]


def picture(result: dict[str, Any]) -> str:
    """Return the picture of a result as base64, empty if it has none."""
    file = HERE / "results" / result.get("picture", "")
    if not result.get("picture") or not file.exists():
        return ""
    return base64.b64encode(file.read_bytes()).decode()
