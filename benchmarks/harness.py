"""Shared code of the benchmarks: options, facts of the machine, tables, JSON and pictures.

arguments = arguments_of(__doc__, seconds=10.0); need("matplotlib"); result = facts("name", vars(arguments))
table(rows); with picture(result, 2) as (left, right): left.plot(…); keep(result)

Results are written to benchmarks/results/NAME-UTC.json and .png. Import this module first: it makes the
repository importable, so that a script runs as a file.
"""

# pyright: reportMissingImports=false
# (the extra `bench`)

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from model_store.libraries import installed_version  # noqa: E402
from model_store.machine import usable_cores  # noqa: E402

MODEL = "ssdlite-coco"
WEIGHTS = ROOT / "examples" / "models" / MODEL / "1" / "model.onnx"
PHOTO = ROOT / "examples" / "photos" / "moose.jpg"  # 164 KB, 1024 x 683
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    *("ray", "onnxruntime", "opencv-python-headless", "simplejpeg", "numpy", "deltalake"),
    *("fastapi", "uvicorn", "uvloop", "mlcommons-loadgen"),
)


def arguments_of(
    doc: str | None, more: Callable[[argparse.ArgumentParser], None] = lambda parser: None, /, **defaults: float | str
) -> argparse.Namespace:
    """Parse options with the names of `defaults`, those of `more`, and --quick, for a minimal run."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="run for about a minute, as a smoke test")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    more(parser)
    return parser.parse_args()


def need(*modules: str, group: str = "bench") -> None:
    """Exit with an install command if modules are missing, before anything is measured."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        sys.exit(
            f"{', '.join(missing)} cannot be imported; install the benchmark tools first:\n"
            f"  uv pip install --constraint constraints.txt --group {group} -e '.[cpu]'"
        )


def facts(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return machine, time and commit, to which a script adds its results. Call it before Resight starts."""
    others = psutil.cpu_percent(interval=2) / 100
    if others > 0.1:
        print(f"others use {others:.0%} of this machine: ratios and latencies below mean little", file=sys.stderr)
    return {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cores": usable_cores(),
            "cpu": cpu_name(),
            "python": platform.python_version(),
            "busy_with_others": round(others, 2),
        },
        "versions": {name: found for name in PACKAGES if (found := installed_version(name))},
        "config": config,
    }


def keep(result: dict[str, Any]) -> None:
    """Write the JSON and print it as the last line."""
    file = _file(result, "json")
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1)
    rows = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    file.write_text(rows + "\n")  # a list of numbers stays on one line
    print(f"kept: {file.relative_to(ROOT)}", file=sys.stderr)
    print(json.dumps(result))


@contextlib.contextmanager
def picture(result: dict[str, Any], panels: int) -> Iterator[Sequence[Any]]:
    """Yield axes side by side; save the picture next to the JSON."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(1, panels, figsize=(6 * panels, 4), squeeze=False)
    yield list(axes[0])
    machine = result["machine"]
    words = f"{result['at']}  {result['commit']}  {machine['cores']} cores, {machine['cpu']}"
    drawn.suptitle(f"{result['benchmark']}   {words}", fontsize=8)
    drawn.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    file = _file(result, "png")
    drawn.savefig(file, dpi=100)
    result["picture"] = file.name
    plt.close(drawn)


def peak_mib() -> float:
    """Return the peak memory of this process in MiB. (ru_maxrss of a child starts at the memory of its parent.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table; columns are the keys of the first row."""
    columns = list(rows[0]) if rows else []
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def verdicts(result: dict[str, Any], rows: Sequence[tuple[str, Any, str, bool]]) -> None:
    """Print name, value, bound and outcome of each verdict, and add them to the result."""
    table([{"verdict": n, "value": v, "bound": b, "": "" if ok else "NO"} for n, v, b, ok in rows])
    result["verdicts"] = {n: {"value": v, "bound": b, "holds": ok} for n, v, b, ok in rows}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return "-" if value is None else str(value)


def _file(result: dict[str, Any], kind: str) -> Path:
    stamp = result["at"].replace(":", "").replace("+0000", "Z")
    quick = "-quick" if result["config"].get("quick") else ""
    return RESULTS / f"{result['benchmark']}{quick}-{stamp}.{kind}"


def commit() -> str:
    """Return the short commit id, with a + if tracked files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
