"""Measure the endpoint with MLPerf LoadGen in the scenarios SingleStream, Server and Offline.

python benchmarks/loadgen_mlperf.py [--duration-s 60] [--bound-ms 0] [--quick]          needs the group `bench`

The system under test is the HTTP endpoint with the JPEGs of examples/photos. Latency is measured from the schedule of
LoadGen to the complete response, including queueing in this client. VALID, INVALID and all figures are those of LoadGen
(mlperf_log_summary.txt, included in the JSON).

SingleStream  one query after the other: 90th percentile of latency.
Offline       all samples at once, 16 in flight: samples per second.
Server        Poisson arrivals: the largest VALID rate, with 99 % of queries within the bound. Rates are tried
              from 0.95 of Offline downwards, and halfway back up. The bound is the 100 ms of RetinaNet or four times
              the 90th percentile of SingleStream, the larger of both, so that a small machine can pass.
              The table shows the bound.

This is not a submission: MLPerf requires 600 s, 24,576 samples offline, its own model and data, and an accuracy check.
LoadGen ignores statuses; here, any status except 200 makes a scenario INVALID. The negative control is Server at 1.2
times Offline, which must exceed the bound.
"""

# pyright: reportMissingImports=false
# (the extra `bench`)

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import MODEL, ROOT, arguments_of, facts, keep, need, picture, table, verdicts

need("mlperf_loadgen", "matplotlib")

import mlperf_loadgen as loadgen  # noqa: E402

from benchmarks.own_cluster import Cluster, cluster  # noqa: E402
from benchmarks.raw_http import request_bytes  # noqa: E402
from benchmarks.sut import Endpoint  # noqa: E402

UNDER_WAY = {"Offline": 16, "Server": 48}  # below the 64 that a replica admits
RETINANET_MS = 100.0
CONTROL = 1.2
LINE = re.compile(r"^\s*(\S.*?)\s*:\s+(\S+)\s*$", re.MULTILINE)


def main() -> None:
    arguments = arguments_of(__doc__, duration_s=60.0, bound_ms=0.0, tries=5)
    if arguments.quick:
        arguments.duration_s, arguments.tries = 5.0, 2
    result = facts("loadgen_mlperf", vars(arguments))
    with cluster() as up:
        result |= measure(arguments, up)
    report(result)


def measure(arguments: argparse.Namespace, up: Cluster) -> dict[str, Any]:
    photos = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
    path = f"/v1/detect?model={MODEL}"
    endpoint = Endpoint(up.url, [request_bytes(up.url, path, p.read_bytes()) for p in photos])

    def run(scenario: str, **settings: float) -> dict[str, Any]:
        found = one_run(endpoint, scenario, arguments.duration_s, settings)
        rows.append(found)
        return found

    rows: list[dict[str, Any]] = []
    try:
        one_run(endpoint, "SingleStream", 2.0, {})  # warm up
        single = run("SingleStream")
        guess = 2e3 / single["p90_ms"]
        offline = run("Offline", offline_expected_qps=guess)
        bound_ms = arguments.bound_ms or max(RETINANET_MS, 4 * single["p90_ms"])
        server = largest_valid(
            lambda qps: run(*("Server",), server_target_qps=qps, server_target_latency_ns=bound_ms * 1e6),
            0.95 * offline["per_s"],
            arguments.tries,
        )
        asked = {"server_target_latency_ns": bound_ms * 1e6}
        control = one_run(
            *(endpoint, "Server", arguments.duration_s / 4), asked | {"server_target_qps": CONTROL * offline["per_s"]}
        )
    finally:
        endpoint.close()
    return {
        "control": control,
        "bound_ms": round(bound_ms, 1),
        "rows": rows,
        "single_stream_p90_ms": single["p90_ms"],
        "offline_per_s": offline["per_s"],
        "server_per_s": server["per_s"] if server else None,
        "server_over_offline": round(server["per_s"] / offline["per_s"], 3) if server else None,
    }


def largest_valid(run: Callable[[float], dict[str, Any]], first: float, tries: int) -> dict[str, Any] | None:
    """Lower the rate by a quarter until it is VALID, then search halfway upwards within the number of tries."""
    best: dict[str, Any] | None = None
    too_much, qps = first / 0.75, first
    for _ in range(tries):
        found = run(qps)
        if found["result"] == "VALID":
            best = found
        else:
            too_much = qps
        if too_much > first:
            break  # the first try was VALID
        qps = (best["target_per_s"] + too_much) / 2 if best else qps * 0.75
    return best


def one_run(endpoint: Endpoint, scenario: str, duration_s: float, asked: dict[str, float]) -> dict[str, Any]:
    """Run a scenario; return a row of the table from the summary of LoadGen."""
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(duration_s * 1e3)
    settings.min_query_count = 1
    for name, value in asked.items():
        setattr(settings, name, type(getattr(settings, name))(value))
    endpoint.begin(UNDER_WAY.get(scenario, 1))
    with tempfile.TemporaryDirectory() as folder:
        log = loadgen.LogSettings()
        log.log_output.outdir = folder
        log.log_output.copy_summary_to_stdout = False
        sut = loadgen.ConstructSUT(endpoint.issue, lambda: None)
        count = len(endpoint.requests)
        library = loadgen.ConstructQSL(count, count, lambda _: None, lambda _: None)
        loadgen.StartTestWithLogSettings(sut, library, settings, log)
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
    said = dict(LINE.findall(summary))
    failures = endpoint.statuses.total() - endpoint.statuses[200]
    rates = ("Completed samples per second", "Samples per second", "QPS w/o loadgen overhead")
    rate = next((float(said[name]) for name in rates if name in said), None)
    return {
        "scenario": scenario,
        "target_per_s": asked.get("server_target_qps"),
        "result": said["Result is"] if not failures else "INVALID",
        "per_s": rate,
        **{f"p{rank}_ms": _ms(said, rank) for rank in ("50", "90", "99")},
        "queries": endpoint.statuses.total(),
        "failures": failures,
        "early_stopping": said.get("Early Stopping Result") or said.get("Early stopping satisfied"),
        "summary": summary,
    }


def _ms(said: dict[str, str], rank: str) -> float | None:
    value = said.get(f"{rank}.00 percentile latency (ns)")
    return round(float(value) / 1e6, 2) if value else None


def report(result: dict[str, Any]) -> None:
    table([{k: v for k, v in row.items() if k != "summary"} for row in result["rows"]])
    how = "RetinaNet's" if result["bound_ms"] == RETINANET_MS else "scaled to this machine"
    print(f"Server's bound: {result['bound_ms']} ms at the 99th percentile ({how})")
    single, offline = (
        next(row for row in result["rows"] if row["scenario"] == name) for name in ("SingleStream", "Offline")
    )
    ratio, bound_ms = result["server_over_offline"], result["bound_ms"]
    control = result["control"]["p99_ms"] or 0.0
    verdicts(
        result,
        [
            ("SingleStream p90, ms", single["p90_ms"], "VALID", single["result"] == "VALID"),
            ("Offline, a second", offline["per_s"], "VALID", offline["result"] == "VALID"),
            ("Server, a second", result["server_per_s"], "VALID", ratio is not None),
            ("Server / Offline", ratio, "≥ 0.90", bool(ratio and ratio >= 0.9)),
            ("control: 1.2 x Offline, p99 in ms", control, f"> {bound_ms}", control > bound_ms),
        ],
    )
    with picture(result, 1) as (axes,):
        rows = [row for row in result["rows"] if row["scenario"] == "Server"]
        for row in rows:
            color = "tab:green" if row["result"] == "VALID" else "tab:red"
            axes.plot(row["target_per_s"], row["p99_ms"], "o", color=color)
        axes.axhline(result["bound_ms"], color="grey", linewidth=0.5)
        axes.axvline(result["offline_per_s"], color="grey", linestyle=":", linewidth=0.5)
        axes.set(xlabel="Server: target a second (dotted: Offline)", ylabel="p99, ms")
    keep(result)


if __name__ == "__main__":
    main()
