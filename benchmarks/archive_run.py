"""How much of this machine does an archive run get, against a bare decode + ONNX loop on all cores?

python benchmarks/archive_run.py --images 2000
A (bare loop) and B (a run: `resight reprocess` on its own cluster) alternate on the same files in this
one call: A B A B … A, and each B is compared with the mean of the A before and after it, because
machines drift. Prints a table; the last line of standard output is one JSON document, which is also
kept in benchmarks/results/. Steady state = between 10 % and 90 % of the images; end to end includes
the job's start, planning, commits and the final count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bare_loop import BareLoop  # noqa: E402
from benchmarks.cpu_share import CpuShare  # noqa: E402
from examples.sample_archive import build  # noqa: E402
from model_store.names import parse_ref  # noqa: E402
from model_store.store import ModelStore  # noqa: E402
from serve.cluster import read_state  # noqa: E402
from serve.ports import preferred_or_free  # noqa: E402
from serve.settings import Settings, usable_cores  # noqa: E402

MODEL = "ssdlite-coco"
PACKAGES = ("ray", "onnxruntime", "opencv-python-headless", "simplejpeg", "numpy", "deltalake")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3, help="how often B runs (A runs once more)")
    parser.add_argument("--data", type=Path, help="keep the sample archive here for the next time")
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="resight-bench-") as home:
        archive = arguments.data or Path(home) / "archive"
        print(f"sample archive of {arguments.images} images …", file=sys.stderr)
        build(archive, arguments.images)
        result = measure(arguments, archive, Path(home))
    report(result)


def measure(arguments: argparse.Namespace, archive: Path, home: Path) -> dict[str, Any]:
    files = sorted(p for p in archive.rglob("*") if p.is_file())
    store = ModelStore(str(ROOT / "examples" / "models"))
    config = store.describe(store.resolve(parse_ref(MODEL))).config
    weights = ROOT / "examples" / "models" / MODEL / "1" / "model.onnx"
    bare = BareLoop(str(weights), config.preprocess.side_px, usable_cores())
    os.environ |= {"RESIGHT_HOME": str(home), "RESIGHT_MODELS": store.url}
    resight("up", "--port", str(preferred_or_free(0)))
    head = read_state(Settings())
    assert head is not None
    try:
        bare_rates, runs = [bare.run(files)], []
        for turn in range(arguments.rounds):
            tables = {"RESIGHT_TABLES": str(home / f"tables-{turn}")}
            resight("ingest", str(archive), **tables)
            pace = ("--chunk", str(arguments.chunk), "--threads", str(arguments.threads))
            started = time.perf_counter()
            with CpuShare(head.pid) as share:
                out = resight("reprocess", "--model", MODEL, "--format", "json", *pace, **tables)
            elapsed = time.perf_counter() - started
            runs.append(json.loads(out) | {"end_to_end_s": elapsed, "cpu_s": share.seconds()})
            bare_rates.append(bare.run(files))
    finally:
        resight("down")
    steady = [run["steady_images_per_s"] for run in runs]
    whole = [run["counts"]["requested"] / run["end_to_end_s"] for run in runs]
    base = [(a + b) / 2 for a, b in pairwise(bare_rates)]
    return {
        "benchmark": "archive_run",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cores": usable_cores(),
            "cpu": cpu_name(),
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in PACKAGES},
        "config": {"images": len(files), "model": MODEL, "chunk": arguments.chunk},
        "bare_images_per_s": bare_rates,
        "steady_images_per_s": steady,
        "end_to_end_images_per_s": whole,
        "cpu_ms_per_image": cpu_per_image(runs),
        "steady_ratios": [b / a for a, b in zip(base, steady, strict=True)],
        "end_to_end_ratios": [b / a for a, b in zip(base, whole, strict=True)],
    }


def cpu_per_image(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds of CPU by part of the cluster, whole runs, their start included."""
    images = sum(run["counts"]["requested"] for run in runs)
    parts = sorted({part for run in runs for part in run["cpu_s"]})
    return {p: round(sum(r["cpu_s"].get(p, 0) for r in runs) / images * 1e3, 2) for p in parts}


def resight(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "resight", *words],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def report(result: dict[str, Any]) -> None:
    for name in ("bare_images_per_s", "steady_images_per_s", "end_to_end_images_per_s"):
        samples = result[name]
        spread = " ".join(f"{sample:.1f}" for sample in samples)
        print(f"{name:26} median {statistics.median(samples):6.1f}   samples {spread}")
    for words, name in (
        ("steady state / bare loop", "steady_ratios"),
        ("end to end / bare loop", "end_to_end_ratios"),
    ):
        ratios = result[name]
        spread = " ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{words:26} median {statistics.median(ratios):6.3f}   samples {spread}")
    parts = "  ".join(f"{part} {ms}" for part, ms in result["cpu_ms_per_image"].items())
    print(f"{'CPU ms per image':26} {parts}")
    stamp = result["at"].replace(":", "").replace("+0000", "Z")
    kept = ROOT / "benchmarks" / "results" / f"archive_run-{stamp}.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


if __name__ == "__main__":
    main()
