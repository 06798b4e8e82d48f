"""Measure how a full reprocess and concurrent uploads slow each other down.

python benchmarks/lanes.py [--images 2000] [--rounds 2] [--share 0.1] [--quick]

Three cases alternate on one cluster: `idle`, only uploads; `solo`, only a run (`resight reprocess` over a sample
archive, into new tables); `shared`, both. Uploads are one 164 KB JPEG in an open loop, at `share` of the rate at which
8 clients saturate the endpoint. Latency is measured from the time at which a request was due.

p99_ratio    p99 of uploads from the start of the run's job to its end, over idle: at most 2. The table also shows
             `middle`: the middle half of the run, without the start and end of the job.
bulk_ratio   steady images/s of the shared run over those of the runs alone: at least 0.85. Uploads use some of the
             same cores; all_ratio also counts them as images, and so shows the cost of sharing itself.
control      eight clients that upload continuously, in place of the run: load that no lane separates. The p99 of
             the same uploads must be worse than with a run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import MODEL, PHOTO, arguments_of, facts, keep, need, picture, table, verdicts

from benchmarks.load import Load
from benchmarks.own_cluster import Cluster, cluster
from benchmarks.records import Records
from benchmarks.swaps import ranks
from examples.sample_archive import build

CONTROL = "beside 8 clients"


def main() -> None:
    arguments = arguments_of(__doc__, images=2000, rounds=2, share=0.1, idle_s=60.0, rate=0.0)
    need("matplotlib")
    if arguments.quick:
        arguments.images, arguments.rounds, arguments.idle_s, arguments.rate = 60, 1, 5.0, 3.0
    result = facts("lanes", vars(arguments))
    with tempfile.TemporaryDirectory(prefix="resight-bench-") as folder:
        archive = Path(folder) / "archive"
        build(archive, arguments.images)
        with cluster() as up:
            result |= measure(arguments, up, archive)
    report(result)


def measure(arguments: argparse.Namespace, up: Cluster, archive: Path) -> dict[str, Any]:
    load = Load(up.url, f"/v1/detect?model={MODEL}", PHOTO.read_bytes())
    full = replace(load, clients=8, seconds=2 if arguments.quick else 15).run().summary()["per_s"]
    rate = arguments.rate or arguments.share * full
    uploads = replace(load, rate=rate)
    idle: list[Records] = []
    whole: list[Records] = []
    middle: list[Records] = []
    solo: list[dict[str, Any]] = []
    shared: list[dict[str, Any]] = []
    for turn in range(arguments.rounds):
        idle.append(replace(uploads, seconds=arguments.idle_s, seed=turn).run())
        solo.append(reprocess(up, archive, f"solo-{turn}"))
        running = replace(uploads, seed=turn).start()
        try:
            shared.append(reprocess(up, archive, f"shared-{turn}"))
        finally:
            seen = running.stop()
        start_s, end_s = shared[-1]["from_s"], shared[-1]["to_s"]
        quarter_s = (end_s - start_s) / 4
        whole.append(seen.between(start_s, end_s))
        middle.append(seen.between(start_s + quarter_s, end_s - quarter_s))
    beside_clients = crowded(uploads, 5.0 if arguments.quick else arguments.idle_s)
    of = {"idle": idle, "during a run": whole, "its middle half": middle, CONTROL: [beside_clients]}
    online = {name: together(several) for name, several in of.items()}
    bulk = {name: [rate_of(run) for run in runs] for name, runs in (("solo", solo), ("shared", shared))}
    alone, beside = (statistics.median(bulk[name]) for name in ("solo", "shared"))
    return {
        "saturated_per_s": full,
        "rate_per_s": round(rate, 2),
        "online": online,
        "bulk_images_per_s": bulk,
        "runs": {"solo": solo, "shared": shared},
        "p99_ratio": round(online["during a run"]["p99"] / online["idle"]["p99"], 3),
        "p99_ratio_middle": round(online["its middle half"]["p99"] / online["idle"]["p99"], 3),
        "bulk_ratio": round(beside / alone, 3),
        "all_ratio": round((beside + rate) / alone, 3),
        "failures": sum(one["failures"] for name, one in online.items() if name != CONTROL),
        "quantiles_ms": {name: quantiles(several) for name, several in of.items()},
    }


def crowded(uploads: Load, seconds: float) -> Records:
    """Measure the uploads with eight other clients in the same lane."""
    others = replace(uploads, rate=0.0, clients=8, seconds=0).start()
    try:
        return replace(uploads, seconds=seconds).run()
    finally:
        others.stop()


def reprocess(up: Cluster, archive: Path, tables: str) -> dict[str, Any]:
    """Ingest and complete one run; return start and end of its job on the clock of time.perf_counter."""
    where = {"RESIGHT_TABLES": str(up.home / tables)}
    up.resight("ingest", str(archive), **where)
    from_s = time.perf_counter()
    try:
        out = up.resight("reprocess", "--model", MODEL, "--format", "json", **where)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"the run ended with {error.returncode}: {error.stdout}") from error
    return json.loads(out) | {"from_s": from_s, "to_s": time.perf_counter()}


def rate_of(run: dict[str, Any]) -> float:
    """Return the steady-state rate, or the rate over all images if a run is too short."""
    whole = run["counts"]["requested"] / run["seconds"]
    return float(run["steady_images_per_s"] or run["images_per_s"] or round(whole, 2))


def together(several: Sequence[Records]) -> dict[str, Any]:
    latency = np.concatenate([records.latency_ms for records in several])
    return ranks(latency) | {"failures": sum(int((r.status != 200).sum()) for r in several)}


def quantiles(several: Sequence[Records]) -> list[float]:
    latency = np.concatenate([records.latency_ms for records in several])
    return [round(float(q), 2) for q in np.percentile(latency, range(101))] if len(latency) else []


def report(result: dict[str, Any]) -> None:
    table([{"uploads, ms": name} | one for name, one in result["online"].items()])
    table(
        [
            {"run, images/s": name, "median": statistics.median(rates), "samples": str(rates)}
            for name, rates in result["bulk_images_per_s"].items()
        ]
    )
    p99, bulk = result["p99_ratio"], result["bulk_ratio"]
    worse, during = (result["online"][name]["p99"] for name in (CONTROL, "during a run"))
    rows = [
        ("failed uploads", result["failures"], "0", result["failures"] == 0),
        ("p99 during a run / idle", p99, "≤ 2", p99 <= 2),
        ("bulk shared / solo", bulk, "≥ 0.85", bulk >= 0.85),
        ("control: p99 beside clients, ms", worse, f"> {during}", worse > during),
    ]
    verdicts(result, rows)
    print(f"uploads: {result['rate_per_s']} a second, of {result['saturated_per_s']} at saturation")
    print(f"uploads counted as images too: {result['all_ratio']} of solo")
    with picture(result, 2) as (online, bulk_of):
        for name, values in result["quantiles_ms"].items():
            online.plot(range(len(values)), values, label=name)
        online.set(xlabel="percentile of uploads", ylabel="ms", yscale="log")
        online.legend()
        for name, rates in result["bulk_images_per_s"].items():
            bulk_of.plot(rates, "o-", label=name)
        bulk_of.set(xlabel="round", ylabel="images/s", ylim=(0, None))
        bulk_of.legend()
    keep(result)


if __name__ == "__main__":
    main()
