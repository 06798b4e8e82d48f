"""Run all benchmarks and write one report: benchmarks/report/index.html and report.json.

python benchmarks/bench.py [--quick] [--only peers_online,lanes]          or: make bench, make bench-quick

The scripts run one after the other with no other load. The report shows a failed script with the end of its output;
the others still run, and the exit code is 1.
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
"""Time limit of a step as a multiple of its expected duration."""


@dataclass(frozen=True)
class Step:
    """A benchmark script and its arguments; `quick` is None if it has no meaningful quick form."""

    script: str
    whole: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = None
    minutes: int = 5


STEPS = (
    Step("peers_archive", ("--images", "500", "--tuning-images", "0"), ("--quick",), 9),
    Step("peers_online", ("--rounds", "2", "--seconds", "6", "--tuning-s", "0"), ("--quick",), 12),
    Step("archive_run", ("--images", "1000", "--size", "1920x1080", "--rounds", "2", "--here"), minutes=3),
    Step("archive_run", ("--images", "1000", "--size", "1920x1080", "--rounds", "2"), minutes=7),
    Step("archive_run", ("--images", "1000", "--size", "1920x1080", "--rounds", "1", "--jpeg-shrink", "4"), minutes=4),
    Step("http_latency", ("--rounds", "2", "--seconds", "4"), ("--quick",), 6),
    Step("hot_swap", ("--promotions", "100", "--loads", "10", "--steady-s", "20"), minutes=4),
    Step("lanes", ("--images", "300", "--rounds", "1", "--idle-s", "30"), minutes=3),
    Step("loadgen_mlperf", ("--duration-s", "15", "--tries", "2"), minutes=3),
    Step("hostile_images", ("--images", "1000"), minutes=2),
    Step("crash_matrix", minutes=5),
    Step("planning", minutes=3),
    Step("catalogue", ("--quick",), minutes=2),
    Step("filters", ("--here", "--detections", "100000"), minutes=2),
    Step("uploads", ("--sizes", "1000000"), minutes=2),
    Step("page", ("--pages", "200"), minutes=4),
    Step("load_cost", ("--quick",), minutes=1),
    Step("decode_and_nms", quick=("--quick",), minutes=1),
)
"""Steps with sizes at which all end within 75 minutes on two slow cores; by default, each script measures longer.

Peers run in their first configuration, which was the best on two cores; the scripts by themselves try all.
"""


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
    """Return the steps of these names. Raises SystemExit for an unknown name."""
    names = [word for word in arguments.only.split(",") if word]
    if unknown := set(names) - {step.script for step in STEPS}:
        raise SystemExit(f"unknown benchmarks: {', '.join(sorted(unknown))}")
    steps = [step for step in STEPS if not names or step.script in names]
    return [step for step in steps if step.quick is not None] if arguments.quick else steps


def outcome(step: Step, quick: bool) -> dict[str, Any]:
    """Return the command and duration of a step with its `result`, or with `failed` and the end of its output."""
    words = [f"benchmarks/{step.script}.py", *((step.quick or ()) if quick else step.whole)]
    print(f"\n== {' '.join(words)}", file=sys.stderr)
    began_s = time.perf_counter()
    told: dict[str, Any] = {"script": step.script, "command": f"python {' '.join(words)}"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            out, _ = process.communicate(timeout=LONGEST * step.minutes * 60)
            how = f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # so that it ends its child processes
            out, _ = process.communicate()
            how = f"was stopped after {LONGEST * step.minutes} minutes"
        errors.seek(0)
        wrong = errors.read()[-TAIL:]
    told |= {"seconds": round(time.perf_counter() - began_s, 1)}
    said, _, last = out.rstrip().rpartition("\n")
    print(said or wrong, file=sys.stderr)
    try:  # a script may also report a missed bound by its exit code
        return told | {"said": said, "result": json.loads(last)}
    except ValueError:
        return told | {"failed": f"{how}: {wrong or out[-TAIL:]}"}


if __name__ == "__main__":
    main()
