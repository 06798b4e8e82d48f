"""Measure the latency of the endpoint, and its throughput relative to a bare loop on the same machine.

python benchmarks/http_latency.py [--seconds 15] [--rounds 3] [--quick] [--model NAME --store DIR]

One 164 KB JPEG is sent repeatedly to a separate cluster. `closed N`: N clients, each with one request at a time;
`open R/s`: Poisson arrivals at half and at four fifths of the best closed rate, with latency from the due time.
`bare_ratio` is the throughput over that of a bare decode + ONNX loop on all cores (`bare_loop.py`), which runs before
and after every case: A B A B A. The tensor cases post float32 tensors to /v2/models/…/infer and are compared with a
loop without decoding. `overhead` is the median at one client minus the median of one bare worker just before it. It is
measured with this JPEG and with one of 1080p (about 500 KB). Targets: 0.85 with JPEGs, 0.90 with tensors, 3 ms of
overhead. Means by stage are metrics of the replica. …_cpu_ms are processor milliseconds per request on the same cores:
in the replica, in the rest of Ray (including the proxy) and in the load generator.
The negative control is the same picture as a PNG, which takes longer to decode: it must be slower.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
from harness import PHOTO, arguments_of, facts, keep, need, picture, table, verdicts

from benchmarks.bare_loop import BareLoop
from benchmarks.cpu_share import CpuShare
from benchmarks.load import Load
from benchmarks.own_cluster import Cluster, cluster
from benchmarks.scraped import batch_sizes, scrape, stage_ms
from benchmarks.sized_archive import frame
from benchmarks.subject import Subject, add_options
from model_store.machine import usable_cores

CLIENTS = (1, 2, 4, 8, 16)
CONTROL = "control 8"
LEAST_JPEG, LEAST_TENSOR, MOST_OVERHEAD_MS = 0.85, 0.90, 3.0
OPEN_SHARES = (0.5, 0.8)


def main() -> None:
    arguments = arguments_of(__doc__, add_options, seconds=15.0, rounds=3)
    need("matplotlib")
    subject = Subject.of(arguments)
    if arguments.quick:
        arguments.seconds, arguments.rounds = 2.0, 1
    asked = {name: value for name, value in vars(arguments).items() if name != "store"}
    result = facts("http_latency", asked)
    with cluster(subject) as up:
        result |= measure(arguments, subject, up)
    report(result)


def measure(arguments: argparse.Namespace, subject: Subject, up: Cluster) -> dict[str, Any]:
    path = f"/v1/detect?model={subject.name}"
    jpeg = Load(up.url, path, PHOTO.read_bytes(), seconds=arguments.seconds)
    tensor, why_not = tensor_load(up, subject, arguments.seconds)
    bare = BareLoop(str(subject.graph), subject.side_px, usable_cores())
    replace(jpeg, clients=4, seconds=2).run()  # warm up
    before, rows = scrape(up.url), []
    kinds = [("jpeg", jpeg, bare)]
    kinds += [("tensor", tensor, replace(bare, decodes=False))] if tensor else []
    png = replace(jpeg, body=png_of(PHOTO))
    large = up.home / "large.jpg"
    large.write_bytes(frame((1920, 1080)))
    over: list[dict[str, Any]] = []
    for _ in range(arguments.rounds):
        for body, load, loop in kinds:
            rows += alternate(up, body, load, loop, arguments)
        over += [overhead(jpeg, bare, file) for file in (PHOTO, large)]
        found = watched(up, replace(png, clients=8))
        rows.append({"body": "png", "case": CONTROL, "bare_per_s": None} | found)
    return {
        "overhead": over,
        "skipped": why_not,
        "batch_sizes": batch_sizes(before, scrape(up.url)),
        "rounds": rows,
        "cases": merged(rows),
    }


def overhead(load: Load, loop: BareLoop, file: Path) -> dict[str, Any]:
    """Return the median milliseconds of one client and of one bare worker, measured one after the other."""
    images = max(20, int(load.seconds * 15))
    bare = statistics.median(replace(loop, workers=1).seconds([file] * images)[0]) * 1e3
    asked = replace(load, body=file.read_bytes(), clients=1).run().summary()["p50_ms"]
    facts_of = {"kb": file.stat().st_size // 1000, "bare_p50_ms": round(bare, 2), "p50_ms": asked}
    return facts_of | {"overhead_ms": round(asked - bare, 2)}


def alternate(
    up: Cluster, body: str, load: Load, loop: BareLoop, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Run closed cases with a bare loop before and after each, then open cases."""
    rows: list[dict[str, Any]] = []
    rates = [bare_rate(loop, arguments.seconds / 2)]
    for clients in (1, 8) if arguments.quick else CLIENTS:
        found = watched(up, replace(load, clients=clients))
        rates.append(bare_rate(loop, arguments.seconds / 2))
        base = (rates[-2] + rates[-1]) / 2
        ratio = round(found["per_s"] / base, 3)
        rows.append({"body": body, "case": f"closed {clients}", "bare_per_s": base, "bare_ratio": ratio} | found)
    saturation = max(row["per_s"] for row in rows)
    for share in OPEN_SHARES:
        found = watched(up, replace(load, rate=saturation * share))
        rows.append({"body": body, "case": f"open {share:.0%}", "bare_per_s": None} | found)
    return rows


def watched(up: Cluster, load: Load) -> dict[str, Any]:
    """Run a load; return its results, the metrics of the replica, and the CPU time of the cluster."""
    before = scrape(up.url)
    with CpuShare(up.head_pid) as share:
        records = load.run()
    found: dict[str, Any] = records.summary() | {"samples_ms": records.samples_ms}
    cpu = {f"{part}_cpu_ms": round(seconds / found["requests"] * 1e3, 2) for part, seconds in share.seconds().items()}
    return found | stage_ms(before, scrape(up.url)) | cpu


def png_of(photo: Path) -> bytes:
    pixels = cv2.imread(str(photo))
    assert pixels is not None
    return cv2.imencode(".png", pixels)[1].tobytes()


def bare_rate(loop: BareLoop, seconds: float) -> float:
    """Return images per second over about `seconds`."""
    images = max(20, int(loop_rate.get(loop.decodes, 40.0) * seconds))
    loop_rate[loop.decodes] = loop.run([PHOTO] * images)
    return loop_rate[loop.decodes]


loop_rate: dict[bool, float] = {}


def merged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per case with medians over the rounds."""
    cases: list[dict[str, Any]] = []
    for body, case in dict.fromkeys((row["body"], row["case"]) for row in rows):
        same = [row for row in rows if (row["body"], row["case"]) == (body, case)]

        def median(name: str, same: Sequence[dict[str, Any]] = same) -> float | None:
            values = [row[name] for row in same if row.get(name) is not None]
            return round(statistics.median(values), 3) if values else None

        names = ("per_s", "bare_ratio", "p50_ms", "p90_ms", "p99_ms", "queue_ms", "preprocess_ms")
        names += ("inference_ms", "replica_cpu_ms", "ray_cpu_ms", "generator_cpu_ms")
        row: dict[str, Any] = {"body": body, "case": case} | {name: median(name) for name in names}
        cases.append(row | {"failures": sum(row["failures"] for row in same)})
    return cases


def tensor_load(up: Cluster, subject: Subject, seconds: float) -> tuple[Load | None, str]:
    """Return a binary FP32 request of the Open Inference Protocol, or why it cannot be made."""
    about = httpx2.get(f"{up.url}/v2/models/{subject.name}")
    if about.status_code != 200:
        return None, f"no tensor cases: GET /v2/models/{subject.name} answers {about.status_code}"
    inputs = [one["name"] for one in about.json()["inputs"] if one["datatype"] == "FP32"]
    if not inputs:
        return None, "no tensor cases: /v2 names no FP32 input"
    shape = (1, 3, subject.side_px, subject.side_px)
    data = np.random.default_rng(0).random(shape, np.float32).tobytes()
    given = {"binary_data_size": len(data)}
    one = {"name": inputs[0], "shape": shape, "datatype": "FP32", "parameters": given}
    head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
    headers = (("inference-header-content-length", str(len(head))),)
    load = Load(up.url, f"/v2/models/{subject.name}/infer", head + data, headers, seconds=seconds)
    found = replace(load, clients=1, count=1, seconds=0).run().summary()
    if found["failures"]:
        return None, f"no tensor cases: infer answers {found['statuses']}"
    return load, ""


def bounds(cases: Sequence[dict[str, Any]], over: Sequence[dict[str, Any]]) -> list[tuple[str, Any, str, bool]]:
    of = {(case["body"], case["case"]): case for case in cases}
    rows: list[tuple[str, Any, str, bool]] = []
    for body, least in (("jpeg", LEAST_JPEG), ("tensor", LEAST_TENSOR)):
        if (body, "closed 8") in of:
            ratio = of[body, "closed 8"]["bare_ratio"]
            rows.append((f"{body}, 8 clients / bare loop", ratio, f"≥ {least}", ratio >= least))
    for kb in sorted({one["kb"] for one in over}):
        ms = statistics.median(one["overhead_ms"] for one in over if one["kb"] == kb)
        bound = f"≤ {MOST_OVERHEAD_MS:g}"
        rows.append((f"overhead with {kb} KB, ms", ms, bound, ms <= MOST_OVERHEAD_MS))
    jpeg, png = of["jpeg", "closed 8"]["per_s"], of["png", CONTROL]["per_s"]
    rows.append(("control: PNG, a second", png, f"< {jpeg}", png < jpeg))
    failures = sum(case["failures"] for case in cases)
    return [*rows, ("failures", failures, "0", failures == 0)]


def report(result: dict[str, Any]) -> None:
    table(result["cases"])
    print(f"batch sizes: {result['batch_sizes'] or 'not told by GET /metrics'}")
    print(result["skipped"])
    table(result["overhead"])
    verdicts(result, bounds(result["cases"], result["overhead"]))
    with picture(result, 2) as (latency, rate):
        for body in ("jpeg", "tensor"):
            cases = [c for c in result["cases"] if c["body"] == body]
            names = [case["case"] for case in cases]
            for rank, style in (("p50_ms", "o"), ("p99_ms", "^")):
                latency.plot(names, [c[rank] for c in cases], style, label=f"{body} {rank}")
            closed = [case for case in cases if case["bare_ratio"]]
            rate.plot([case["case"] for case in closed], [c["bare_ratio"] for c in closed], label=body)
        latency.set_ylabel("ms")
        rate.set_ylabel("throughput / bare loop")
        rate.axhline(LEAST_JPEG, color="grey", linewidth=0.5)
        for axes in (latency, rate):
            axes.legend()
            axes.tick_params(axis="x", rotation=45)
            axes.set_ylim(bottom=0)
    keep(result)


if __name__ == "__main__":
    main()
