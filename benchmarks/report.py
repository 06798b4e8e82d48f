"""Write one report of all benchmarks: outcomes -> index.html with embedded pictures, and report.json.

Missed bounds come first. The tables are those of the scripts; all other data (raw samples, configuration, versions)
are in report.json.
"""

from __future__ import annotations

import ast
import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serve.pages import render

HERE = Path(__file__).resolve().parent


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
