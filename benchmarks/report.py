"""One page of all that was measured: outcomes of the benchmarks -> index.html, with pictures in it, and report.json.

What is asked for and missed is said first. A result's table is that of the script itself; everything else it kept
(raw samples, configuration, versions) is in report.json.
"""

from __future__ import annotations

import ast
import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
pre { background: #f6f6f4; padding: .7rem; overflow-x: auto; font-size: 12px }
table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left }
.no { color: #b00020 } .yes { color: #1b7f3b } img { max-width: 100% } h2 { margin-top: 2.5rem }
"""
WHY = (
    "<p>What bounds those that do not hold, and what was tried: <code>docs/decisions/0020</code>, "
    "<code>benchmarks/README.md</code></p>"
)


def write_report(folder: Path, commit: str, outcomes: Sequence[dict[str, Any]]) -> Path:
    """The page; the folder is made, and what was in it before is written over."""
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
    sections = "\n".join(section(one) for one in outcomes)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Resight, measured</title>"
        f"<style>{STYLE}</style><h1>Resight, measured</h1><p>{escape(words)}</p>"
        f"{summary(outcomes)}{sections}</html>\n"
    )


def summary(outcomes: Sequence[dict[str, Any]]) -> str:
    """Every bound of every benchmark, those that do not hold first."""
    rows = [
        (one["command"], name, *(found[key] for key in ("value", "bound", "holds")))
        for one in outcomes
        for name, found in one.get("result", {}).get("verdicts", {}).items()
    ]
    rows += [
        (one["command"], "it runs to its end", "", "", False) for one in outcomes if "failed" in one
    ]
    cells = "".join(
        f"<tr><td>{escape(name)}<td>{escape(_short(value))}<td>{escape(str(bound))}"
        f"<td class={'yes' if ok else 'no'}>{'holds' if ok else 'no'}<td>{escape(command)}"
        for command, name, value, bound, ok in sorted(rows, key=lambda row: row[4])
    )
    return f"<h2>Bounds</h2><table>{cells}</table>{WHY}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def section(one: dict[str, Any]) -> str:
    question = first_line(HERE / f"{one['script']}.py")
    head = f"<h2>{escape(one['script'])}</h2><p>{escape(question)}</p>"
    command = f"<p><code>{escape(one['command'])}</code>, {one['seconds']:.0f} s</p>"
    if "failed" in one:
        return f"{head}{command}<pre class=no>{escape(one['failed'])}</pre>"
    return f"{head}{command}{picture(one['result'])}<pre>{escape(one['said'])}</pre>"


def first_line(script: Path) -> str:
    """The question that a benchmark's docstring begins with."""
    words = ast.get_docstring(ast.parse(script.read_text())) if script.exists() else None
    return (words or "").partition("\n")[0]


def picture(result: dict[str, Any]) -> str:
    """What the script drew beside its JSON; nothing where it draws nothing."""
    file = HERE / "results" / result.get("picture", "")
    if not result.get("picture") or not file.exists():
        return ""
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<img alt="" src="data:image/png;base64,{data}">'
