"""Compare the throughput of an archive run with a bare decode + ONNX loop on all cores.

python benchmarks/archive_run.py --images 5000 --size 1920x1080 [--here] [--jpeg-shrink 4] [--model NAME --store DIR]
A (bare loop) and B (`resight reprocess` on a separate cluster, or `--here`) alternate on the same files: A B A B … A.
Each B is compared with the mean of the A before and after it, because machines drift. The cluster is up only
during B. Prints a table; the last line of standard output is a JSON document, also written to benchmarks/results/.
Steady state is between 10 % and 90 % of the images; end to end includes the start of the job, planning, commits and
the final count. With --jpeg-shrink the model of the run decodes JPEGs at a fraction of their size, and the bare loop
always at full size (docs/reference/model-config.md). The negative control is a run over one folder that requests one
image at a time from one thread: it must be slower.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import facts, keep, need, picture, verdicts

from benchmarks import sized_archive
from benchmarks.bare_loop import BareLoop
from benchmarks.cpu_share import CpuShare
from benchmarks.first_commit import first_commit
from benchmarks.own_cluster import Cluster, cluster, model_of
from benchmarks.subject import Subject, add_options
from examples import sample_archive
from model_store.machine import usable_cores

STEADY, WHOLE, SHRUNKEN, FIRST_S = 0.97, 0.90, 1.1, 30.0
HERE = (1.0, 0.95, 1.1, 3.0)
"""Targets: ratios to the bare loop, and seconds to the first committed row; and those without a cluster."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3, help="number of B (there is one more A)")
    parser.add_argument(
        "--size", default="", help="make all images of one size, such as 1920x1080; default: mixed sizes"
    )
    parser.add_argument("--data", type=Path, help="folder in which the sample archive is kept for later calls")
    parser.add_argument("--jpeg-shrink", type=int, default=1, choices=(1, 2, 4, 8))
    parser.add_argument("--here", action="store_true", help="run without a cluster")
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    add_options(parser)
    arguments = parser.parse_args()
    need("matplotlib")
    subject = Subject.of(arguments)
    with tempfile.TemporaryDirectory(prefix="resight-bench-") as folder:
        archive = arguments.data or Path(folder) / "archive"
        print(f"archive of {arguments.images} images …", file=sys.stderr)
        if arguments.size:
            width, height = arguments.size.split("x")
            sized_archive.build(archive, arguments.images, (int(width), int(height)))
        else:
            sample_archive.build(archive, arguments.images)
        asked = ("images", "size", "rounds", "jpeg_shrink", "here", "chunk", "threads")
        config = {"model": subject.name} | {name: getattr(arguments, name) for name in asked}
        result = facts("archive_run", config)
        result |= measure(arguments, subject, archive)
    report(result)


def measure(arguments: argparse.Namespace, subject: Subject, archive: Path) -> dict[str, Any]:
    files = sorted(p for p in archive.rglob("*") if p.is_file())
    bare = BareLoop(str(subject.graph), subject.side_px, usable_cores())
    pace = ("--chunk", str(arguments.chunk), "--threads", str(arguments.threads))
    bare_rates, runs = [bare.run(files)], []
    for _ in range(arguments.rounds):
        # only during B: it would take 4 % of two cores from the bare loop
        with cluster(subject, arguments.here) as up:
            model = model_of(up, subject, arguments.jpeg_shrink)
            runs.append(one_run(up, archive, model, "tables", pace))
        bare_rates.append(bare.run(files))
    steady = [run["steady_images_per_s"] for run in runs]
    if None in steady:
        raise SystemExit("too few images for a steady state: use --images 1000 or more")
    part = sorted(p for p in archive.iterdir() if p.is_dir())[0]
    with cluster(subject, arguments.here) as up:
        model = model_of(up, subject, arguments.jpeg_shrink)
        control = one_run(up, part, model, "control", ("--chunk", "1", "--threads", "1"))
    whole = [run["counts"]["requested"] / run["end_to_end_s"] for run in runs]
    base = [(a + b) / 2 for a, b in pairwise(bare_rates)]
    return {
        "bare_images_per_s": bare_rates,
        "steady_images_per_s": steady,
        "end_to_end_images_per_s": whole,
        "first_row_s": [run["first_row_s"] for run in runs],
        "bottlenecks": [run["bottleneck"] for run in runs],
        "cpu_ms_per_image": cpu_per_image(runs),
        "steady_ratios": [b / a for a, b in zip(base, steady, strict=True)],
        "end_to_end_ratios": [b / a for a, b in zip(base, whole, strict=True)],
        "control_ratio": rate_of(control) / statistics.median(bare_rates),
    }


def one_run(up: Cluster, archive: Path, model: str, tables: str, pace: tuple[str, ...]) -> dict[str, Any]:
    """Return the report of a run into new tables, with measurements from outside the run."""
    where = {"RESIGHT_TABLES": str(up.home / tables)}
    up.resight("ingest", str(archive), **where)
    began, started = time.time(), time.perf_counter()
    with CpuShare(up.head_pid) as share:
        out = up.resight("reprocess", "--model", model, "--format", "json", *pace, **where)
    more = {"end_to_end_s": time.perf_counter() - started, "cpu_s": share.seconds()}
    more["first_row_s"] = first_commit(up.home / tables / "results") - began
    return json.loads(out) | more


def rate_of(run: dict[str, Any]) -> float:
    return float(run["steady_images_per_s"] or run["images_per_s"])


def cpu_per_image(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return milliseconds of CPU per image by part of the cluster, over whole runs with their start."""
    images = sum(run["counts"]["requested"] for run in runs)
    parts = sorted({part for run in runs for part in run["cpu_s"]})
    return {p: round(sum(r["cpu_s"].get(p, 0) for r in runs) / images * 1e3, 2) for p in parts}


def report(result: dict[str, Any]) -> None:
    for name in ("bare_images_per_s", "steady_images_per_s", "end_to_end_images_per_s"):
        samples = result[name]
        spread = " ".join(f"{sample:.1f}" for sample in samples)
        print(f"{name:26} median {statistics.median(samples):6.1f}   samples {spread}")
    for words, name in (("steady state / bare loop", "steady_ratios"), ("end to end / bare loop", "end_to_end_ratios")):
        ratios = result[name]
        spread = " ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{words:26} median {statistics.median(ratios):6.3f}   samples {spread}")
    first = " ".join(f"{seconds:.1f}" for seconds in result["first_row_s"])
    print(f"{'first committed row, s':26} {first}   bottlenecks {result['bottlenecks']}")
    parts = "  ".join(f"{part} {ms}" for part, ms in result["cpu_ms_per_image"].items())
    print(f"{'CPU ms per image':26} {parts}")
    steady, whole = (statistics.median(result[f"{name}_ratios"]) for name in ("steady", "end_to_end"))
    targets = HERE if result["config"]["here"] else (STEADY, WHOLE, SHRUNKEN, FIRST_S)
    least, least_whole, least_shrunken, most_s = targets
    if result["config"]["jpeg_shrink"] > 1:
        least = least_shrunken
    control, first_s = result["control_ratio"], statistics.median(result["first_row_s"])
    rows = [
        ("steady state / bare loop", steady, f"≥ {least}", steady >= least),
        ("end to end / bare loop", whole, f"≥ {least_whole}", whole >= least_whole),
        ("first committed row, s", first_s, f"≤ {most_s:g}", first_s <= most_s),
        ("control: one image at a time", control, f"< {steady:.2f}", control < steady),
    ]
    verdicts(result, rows)
    with picture(result, 1) as (axes,):
        axes.plot(range(len(result["bare_images_per_s"])), result["bare_images_per_s"], "o-", label="bare loop")
        between = [turn + 0.5 for turn in range(len(result["steady_images_per_s"]))]
        axes.plot(between, result["steady_images_per_s"], "^-", label="run, steady state")
        axes.plot(between, result["end_to_end_images_per_s"], "v-", label="run, start to end")
        axes.set(xlabel="turn", ylabel="images/s", ylim=(0, None))
        axes.legend()
    keep(result)


if __name__ == "__main__":
    main()
