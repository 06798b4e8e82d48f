"""All benchmarks in one run, and one report of them: benchmarks/report/index.html and report.json.

python benchmarks/bench.py [--quick] [--only peers_online,lanes]          or: make bench, make bench-quick

Each is a script of its own, run one after the other with nothing beside it. One that fails is in the report with the
end of what it said, and the others go on; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT, arguments_of, commit

from benchmarks.report import write_report

HERE = Path(__file__).resolve().parent
REPORT = HERE / "report"
TAIL = 2000
LONGEST = 3
"""A step may take so many times what it should, and is stopped then."""


@dataclass(frozen=True)
class Step:
    """`quick` is None for what has no quick form that says anything."""

    script: str
    whole: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = None
    minutes: int = 5


STEPS = (
    Step("peers_archive", quick=("--quick",), minutes=25),
    Step("peers_online", quick=("--quick",), minutes=30),
    Step("archive_run", ("--images", "2000"), minutes=8),
    Step("archive_run", ("--images", "5000", "--size", "1920x1080", "--rounds", "2"), minutes=14),
    Step(
        "archive_run",
        ("--images", "5000", "--size", "1920x1080", "--rounds", "1", "--jpeg-shrink", "4"),
        minutes=8,
    ),
    Step("http_latency", quick=("--quick",), minutes=20),
    Step("hot_swap", minutes=15),
    Step("lanes", minutes=10),
    Step("loadgen_mlperf", minutes=8),
    Step("hostile_images", minutes=4),
    Step("planning", minutes=5),
    Step("catalogue", minutes=15),
    Step("filters", ("--here",), minutes=15),
    Step("decode_and_nms", quick=("--quick",), minutes=1),
)


def main() -> None:
    arguments = arguments_of(__doc__, only="")
    steps = chosen(arguments)
    minutes = 4 if arguments.quick else sum(step.minutes for step in steps)
    print(f"{len(steps)} benchmarks, about {minutes} minutes", file=sys.stderr)
    done: list[dict[str, Any]] = []
    measured = commit()
    for step in steps:
        done.append(outcome(step, arguments.quick))
        write_report(REPORT, measured, done)
    page = REPORT / "index.html"
    failed = [one["script"] for one in done if "failed" in one]
    print(f"report: {page.relative_to(ROOT)}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def chosen(arguments: argparse.Namespace) -> list[Step]:
    """Raises SystemExit for a name that is none."""
    names = [word for word in arguments.only.split(",") if word]
    if unknown := set(names) - {step.script for step in STEPS}:
        raise SystemExit(f"no benchmark is called {', '.join(sorted(unknown))}")
    steps = [step for step in STEPS if not names or step.script in names]
    return [step for step in steps if step.quick is not None] if arguments.quick else steps


def outcome(step: Step, quick: bool) -> dict[str, Any]:
    """`result` as the script keeps it, or `failed` with what it said last; its command and its time."""
    words = [f"benchmarks/{step.script}.py", *((step.quick or ()) if quick else step.whole)]
    print(f"\n== {' '.join(words)}", file=sys.stderr)
    began_s = time.perf_counter()
    told: dict[str, Any] = {"script": step.script, "command": f"python {' '.join(words)}"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            out, _ = process.communicate(timeout=LONGEST * step.minutes * 60)
            how = f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # so that it ends what it started
            out, _ = process.communicate()
            how = f"was stopped after {LONGEST * step.minutes} minutes"
        errors.seek(0)
        wrong = errors.read()[-TAIL:]
    told |= {"seconds": round(time.perf_counter() - began_s, 1)}
    said, _, last = out.rstrip().rpartition("\n")
    print(said or wrong, file=sys.stderr)
    try:  # a script that misses a bound may say so by its exit code, too
        return told | {"said": said, "result": json.loads(last)}
    except ValueError:
        return told | {"failed": f"{how}: {wrong or out[-TAIL:]}"}


if __name__ == "__main__":
    main()
