"""Test whether a promotion loses requests, mixes up responses, or lets the old version answer late.

python benchmarks/hot_swap.py [--promotions 1000] [--loads 50] [--rate 0] [--quick]

Versions 1, 2 and 3 of one model differ in their score floor: 0.05, 0.1 and 0.5, so that one photograph has 25, 6 or 1
detections. Under a steady open-loop load, the alias is moved `promotions` times. `loads` of them go to version 3,
which was released before (`GET /v1/models` lists it as not resident); the rest alternate between resident versions.
Quiet periods without promotions are interleaved for comparison. The verdicts:

failed   any status except 200.  wrong   the number of detections does not belong to the version of the response.
late     sent after a promotion returned, answered by a version that no later promotion requested.
p99      of requests due during promotions, over p99 of requests due in quiet periods: at most 1.5.
memory   RSS of the replica after each release, from the 6th on: the median of the last fifth over that of the
         first fifth, at most 1.02. Its control is the memory of the same loads without releases.
controls `late` must be over 0 if aliases.json is written directly, which replicas only poll, and counted as a
         promotion that returned at once; `wrong` must flag every response if versions exchange names.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import httpx2
import numpy as np
from harness import MODEL, ROOT, WEIGHTS, arguments_of, facts, keep, need, picture, table, verdicts

from benchmarks.load import Load
from benchmarks.own_cluster import Cluster, cluster
from benchmarks.swaps import Swap, late, memory, parts, ranks, shares, timeline, wrong

ASK = "/v1/detect?min_score=0&model="
PERSON = ROOT / "examples" / "photos" / "person.jpg"
FLOORS = {"1": 0.05, "2": 0.1, "3": 0.5}
COLD = "3"
WARM_UP = 5  # loads after which the memory of the allocator is stable
HAND_WRITES = 5


def main() -> None:
    arguments = arguments_of(__doc__, promotions=1000, loads=50, rate=0.0, pause_s=0.2, steady_s=60.0, stretches=5)
    need("matplotlib")
    if arguments.quick:
        arguments.promotions, arguments.loads, arguments.steady_s = 20, 2, 5.0
        arguments.stretches, arguments.rate = 1, 3.0
    result = facts("hot_swap", vars(arguments))
    with cluster() as up:
        add_versions(up)
        result |= measure(arguments, up)
    report(result)


def add_versions(up: Cluster) -> None:
    """Add versions with the same weights and other score floors."""
    config = json.loads((up.models / MODEL / "1" / "config.json").read_text())
    for version in ("2", "3"):
        file = up.home / f"config-{version}.json"
        file.write_text(json.dumps(config | {"score_floor": FLOORS[version]}))
        words = (str(WEIGHTS), "--name", MODEL, "--version", version, "--config", str(file))
        up.resight("models", "add", *words, "--probe", str(PERSON))


def measure(arguments: argparse.Namespace, up: Cluster) -> dict[str, Any]:
    body = PERSON.read_bytes()
    detections = {v: len(asked(up, f"{MODEL}@{v}")["detections"]) for v in FLOORS}
    assert len(set(detections.values())) == len(FLOORS), f"versions look alike: {detections}"
    load = Load(up.url, ASK + MODEL, body)
    full = replace(load, clients=4, seconds=5).run().summary()["per_s"]
    rate = arguments.rate or 0.4 * full
    up.control("promote", version="2")
    before = Swap("2", 0.0, 0.0, False)
    swaps: list[Swap] = []
    quiet: list[tuple[float, float]] = []
    rss: dict[str, list[float]] = {"loaded": [], "released": []}
    running = replace(load, rate=rate).start()
    try:
        for share in shares(arguments.loads, arguments.stretches):
            quiet.append((time.perf_counter(), time.perf_counter() + arguments.steady_s))
            time.sleep(arguments.steady_s)
            for _ in range(share):
                swaps += one_cycle(up, arguments, rss)
        hand_s = time.perf_counter()
        by_hand = [written_by_hand(up, version) for version in ("2", "1") * HAND_WRITES]
    finally:
        records = running.stop()
    seen, after = records.where(records.sent_s < hand_s), records.where(records.sent_s >= hand_s)
    latencies = parts(seen, swaps, quiet, hand_s)
    p99 = {name: float(np.percentile(latencies[name], 99)) for name in ("steady", "swapping")}
    renamed = {"1": detections["2"], "2": detections["3"], "3": detections["1"]}
    return {
        "detections": detections,
        "saturated_per_s": full,
        "rate_per_s": round(rate, 2),
        "promotions": len(swaps),
        "not_resident": sum(swap.cold for swap in swaps),
        "answers": seen.summary(),
        "failed": int((seen.status != 200).sum()),
        "wrong": wrong(seen, detections),
        **late([before, *swaps], seen),
        "p99_ratio": round(p99["swapping"] / p99["steady"], 3),
        "latency_ms": {name: ranks(values) for name, values in latencies.items()},
        "promote_s": {
            name: ranks([swap.seconds for swap in swaps if swap.cold == cold], 3)
            for name, cold in (("cold", True), ("flip", False))
        },
        "memory": memory(rss, WARM_UP),
        "late_by_hand": late([swaps[-1], *by_hand], after)["late"],
        "wrong_when_renamed": wrong(seen, renamed),
        "rss_mib": rss,
        "timeline": timeline(seen, swaps),
    }


def one_cycle(up: Cluster, arguments: argparse.Namespace, rss: dict[str, list[float]]) -> list[Swap]:
    """Release the cold version, load it again by a promotion, then flip between the others."""
    rss["loaded"].append(up.rss_mib())
    up.control("release", version=COLD)
    time.sleep(0.5)
    rss["released"].append(up.rss_mib())
    done = [promoted(up, COLD, not up.holds(COLD))]
    for flip in range(arguments.promotions // arguments.loads - 1):
        time.sleep(arguments.pause_s)
        done.append(promoted(up, "12"[flip % 2], False))
    return done


def promoted(up: Cluster, version: str, cold: bool) -> Swap:
    asked_s = time.perf_counter()
    up.control("promote", version=version)
    return Swap(version, asked_s, time.perf_counter(), cold)


def written_by_hand(up: Cluster, version: str) -> Swap:
    """Write only the alias file, count it as a promotion that returns at once, and wait until replicas follow."""
    file = up.models / MODEL / "aliases.json"
    file.with_name("aliases.new").write_text(json.dumps({"production": version}))
    file.with_name("aliases.new").replace(file)
    now_s = time.perf_counter()
    while asked(up, MODEL)["model"]["version"] != version:
        time.sleep(0.2)
        assert time.perf_counter() - now_s < 60, f"nobody follows aliases.json to {version}"
    return Swap(version, now_s, now_s, False)


def asked(up: Cluster, ref: str) -> dict[str, Any]:
    return httpx2.post(f"{up.url}{ASK}{ref}", content=PERSON.read_bytes(), timeout=60).json()


def report(result: dict[str, Any]) -> None:
    table([{"requests": name} | ranks for name, ranks in result["latency_ms"].items()])
    table([{"promote, s": name} | ranks for name, ranks in result["promote_s"].items()])
    answers, used = result["answers"]["requests"], result["memory"]
    cold, late_by_hand = result["not_resident"], result["late_by_hand"]
    all_cold = cold == result["config"]["loads"]
    bounds = [
        ("promotions", result["promotions"], f"{cold} of them not resident", all_cold),
        ("failed", result["failed"], f"0 of {answers}", result["failed"] == 0),
        ("wrong", result["wrong"], "0", result["wrong"] == 0),
        ("late", result["late"], "0", result["late"] == 0),
        ("p99 swapping / steady", result["p99_ratio"], "≤ 1.5", result["p99_ratio"] <= 1.5),
        ("memory, end / start", used["end_over_start"], "≤ 1.02", used["end_over_start"] <= 1.02),
        ("control: late by hand", late_by_hand, "> 0", late_by_hand > 0),
    ]
    renamed, leaked = result["wrong_when_renamed"], used["control_never_released"]
    bounds.append(("control: wrong renamed", renamed, f"{answers}", renamed == answers))
    bounds.append(("control: never released", leaked, "> 1.02", leaked > 1.02))
    verdicts(result, bounds)
    with picture(result, 2) as (latency, memory_of):
        line = result["timeline"]
        latency.plot(line["s"], line["p50_ms"], label="median of a second")
        latency.plot(line["s"], line["max_ms"], ".", markersize=3, label="largest of a second")
        for start, end in zip(line["cold_from_s"], line["cold_to_s"], strict=True):
            latency.axvspan(start, end, color="orange", alpha=0.3, linewidth=0)
        latency.plot(line["flips_s"], [0] * len(line["flips_s"]), "|", color="grey", label="flip")
        latency.set(xlabel="s; orange: a load", ylabel="ms", ylim=(0, None))
        latency.legend()
        for name, values in result["rss_mib"].items():
            memory_of.plot(values, label=f"RSS, cold version {name}")
        memory_of.set(xlabel="cycle", ylabel="MiB")
        memory_of.legend()
    keep(result)


if __name__ == "__main__":
    main()
