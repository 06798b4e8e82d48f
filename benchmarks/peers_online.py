"""Compare the serving of Resight with other frameworks that serve the same detector, on this machine.

python benchmarks/peers_online.py [--seconds 12] [--rounds 4] [--only fastapi,litserve] [--quick]

Peers run in separate environments (`peers/online/`), with the same graph and the same decoder, and their first response
must equal that of `peers/detector.py`. First, each configuration of each peer is measured briefly, and the best one is
used (`tuning`). Then, in every round, each is started alone and measured. The order is reversed in every other round,
so that a drift of the machine cancels over an even number of rounds:

saturated    closed loop, four clients per core, at least eight: responses per second, CPU seconds per 1,000 images,
             peak PSS of its processes, sampled
open 50 %, open 80 %    Poisson arrivals at that share of the median throughput, equal for all. Connections take turns.
             A peer that cannot keep up with a rate is reported, and not compared there
first_s      from the start of the command to the first response, with the model loaded
lines        lines of code of the user (with `peers/detector.py`); for Resight with the shipped config.json

Resight is `resight serve`, one process; "Resight on Ray" is `resight up`. Ratios are Resight over a peer within the
same round. Targets: throughput at least 1.0 and p99 at most 1.0 of every peer. The negative control (a session for
every request, on the event loop) must be slower than all others. A failed peer is reported; the others still run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx2
from harness import PHOTO, WEIGHTS, arguments_of, facts, keep, need, picture, table, verdicts

from benchmarks.load import Load
from benchmarks.peers.compared import FAILURES, Row, bounds, made
from benchmarks.peers.detector import Detector
from benchmarks.peers.environments import packages
from benchmarks.peers.peer import Config
from benchmarks.peers.subjects import RESIGHT, Subject, Up, subjects
from benchmarks.peers.watch import Watch
from model_store.machine import usable_cores

CLIENTS = max(8, 4 * usable_cores())
SHARES = (0.5, 0.8)
KEEPS_UP = 0.95
"""Minimum share of the rate that a peer must answer to keep up."""
WATCH_S = 5.0
FIGURES = ("per_s", "cpu_s_per_1000", "pss_mib", "first_s")


def main() -> None:
    arguments = arguments_of(__doc__, seconds=12.0, rounds=4, tuning_s=4.0, only="")
    need("matplotlib")
    if arguments.quick:
        arguments.seconds, arguments.rounds, arguments.tuning_s = 3.0, 1, 0.0
        arguments.only = arguments.only or "fastapi,control"
    result = facts("peers_online", vars(arguments))
    result |= measure(arguments, subjects([word for word in arguments.only.split(",") if word]))
    report(result)


def measure(arguments: argparse.Namespace, everyone: Sequence[Subject]) -> Row:
    jpeg, failed = PHOTO.read_bytes(), list[Row]()
    ready = [one for one in everyone if one.folder is None or made(one.folder, one.name, failed)]
    tuning = [row for one in ready for row in tried(one, jpeg, arguments.tuning_s, failed)]
    chosen = {one.name: best(one, tuning) for one in ready}
    rates = open_rates(ready, tuning)
    rounds: list[Row] = []
    for turn in range(arguments.rounds):
        for one in ready[:: 1 if turn % 2 == 0 else -1]:
            print(f"round {turn}: {one.name} …", file=sys.stderr)
            try:
                with one.up(chosen[one.name], jpeg) as up:
                    rates = rates or [share * saturated(up, 2.0)["per_s"] for share in SHARES]
                    asked = ask(up, arguments.seconds, [] if one.is_control else rates, turn)
                rounds += [{"round": turn, "name": one.name} | row for row in asked]
            except FAILURES as error:
                failed.append({"name": one.name, "round": turn, "error": str(error)[-2000:]})
    facts_of = {
        one.name: {
            "version": one.version,
            "config": chosen[one.name].model_dump(),
            "lines": one.lines,
            "documentation": one.documentation,
            "control": one.is_control,
            "packages": packages(one.folder) if one.folder else {},
        }
        for one in ready
        if any(row["name"] == one.name for row in rounds)
    }
    return {
        "subjects": facts_of,
        "failed": failed,
        "tuning": tuning,
        "open_rates_per_s": rates,
        "rounds": rounds,
        "cases": merged(rounds, facts_of),
        "ratios": ratios(rounds),
    }


def tried(one: Subject, jpeg: bytes, seconds: float, failed: list[Row]) -> list[Row]:
    """Measure each configuration at saturation; skip it without time for tuning or with one configuration."""
    rows = []
    for config in one.configs if seconds else ():
        print(f"trying {one.name}: {config.name} …", file=sys.stderr)
        try:
            with one.up(config, jpeg) as up:
                saturated(up, 2.0)  # other workers may still be loading
                found = saturated(up, seconds)
            rows.append({"name": one.name, "config": config.name, "per_s": found["per_s"]})
        except FAILURES as error:
            failed.append({"name": one.name, "config": config.name, "error": str(error)[-2000:]})
    return rows


def best(one: Subject, tuning: Sequence[Row]) -> Config:
    rates = {row["config"]: row["per_s"] for row in tuning if row["name"] == one.name}
    return max(one.configs, key=lambda config: rates.get(config.name, 0.0))


def open_rates(everyone: Sequence[Subject], tuning: Sequence[Row]) -> list[float]:
    """Return the open rates from the median of all except the control; empty if nothing was measured."""
    found: dict[str, float] = {}
    controls = {one.name for one in everyone if one.is_control}
    for row in tuning:
        if row["name"] not in controls:
            found[row["name"]] = max(row["per_s"], found.get(row["name"], 0.0))
    middle = statistics.median(found.values()) if found else 0.0
    return [round(share * middle, 2) for share in SHARES] if found else []


def ask(up: Up, seconds: float, rates: Sequence[float], turn: int) -> list[Row]:
    """Start a peer and return the rows of its cases. Raises RuntimeError if its response is wrong."""
    require_same(up)
    saturated(up, 2.0)  # warm up
    with Watch(up.pid, WATCH_S) as watch:
        full = saturated(up, seconds)
    cost = {
        "cpu_s_per_1000": round(watch.cpu_s / full["requests"] * 1e3, 1),
        "pss_mib": round(watch.peak_pss_mib),
        "first_s": round(up.first_answer_s, 2),
    }
    rows = [{"case": "saturated"} | full | cost]
    for share, rate in zip(SHARES, rates, strict=False):
        time.sleep(1.0)
        records = load_of(up, rate=rate, seconds=seconds, seed=turn).run()
        found: Row = records.summary() | {"samples_ms": records.samples_ms}
        late = found["per_s"] < KEEPS_UP * found["requests"] / seconds
        rows.append({"case": f"open {share:.0%}", "rate": rate, "overloaded": late} | found)
    return rows


def require_same(up: Up) -> None:
    """Raise RuntimeError unless labels equal those of `peers/detector.py`, and scores to 0.01."""
    answer = httpx2.post(up.url + up.path, content=up.body, headers=dict(up.headers), timeout=60).content
    want = Detector(WEIGHTS.parent)(PHOTO.read_bytes())
    said, known = (sorted((one["label"], one["score"]) for one in many) for many in (up.detections(answer), want))
    labels = [label for label, _ in said] == [label for label, _ in known]
    if not labels or any(abs(s - k) > 0.01 for (_, s), (_, k) in zip(said, known, strict=True)):
        raise RuntimeError(f"it answers {said} instead of {known}")


def saturated(up: Up, seconds: float) -> Row:
    return load_of(up, clients=CLIENTS, seconds=seconds).run().summary()


def load_of(up: Up, **how: Any) -> Load:
    return replace(Load(up.url, up.path, up.body, up.headers), **how)


def merged(rounds: Sequence[Row], facts_of: Row) -> list[Row]:
    """Return a row per subject: medians over the rounds, and the extremes of its throughput."""
    rows: list[Row] = []
    for name, about in facts_of.items():
        own = [row for row in rounds if row["name"] == name]

        def values(case: str, figure: str, own: Sequence[Row] = own) -> list[float]:
            return [row[figure] for row in own if row["case"] == case and figure in row]

        def median(case: str, figure: str) -> float | None:
            found = values(case, figure)
            return round(statistics.median(found), 2) if found else None

        full = values("saturated", "per_s")
        row: Row = {"name": name, "version": about["version"], "config": about["config"]["name"]}
        row |= {figure: median("saturated", figure) for figure in FIGURES}
        row["spread"] = f"{min(full):.1f} to {max(full):.1f}"
        for share in SHARES:
            for rank in ("p50_ms", "p99_ms"):
                row[f"{rank} at {share:.0%}"] = median(f"open {share:.0%}", rank)
        row["overloaded"] = ", ".join(sorted({r["case"] for r in own if r.get("overloaded")}))
        rows.append(row | {"lines": about["lines"], "failures": sum(r["failures"] for r in own)})
    return rows


def ratios(rounds: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Map each peer and figure to the ratio of Resight over that peer in each round in which both kept up."""
    found: dict[str, dict[str, list[float]]] = {}
    ours = {(row["round"], row["case"]): row for row in rounds if row["name"] == RESIGHT}
    for row in rounds:
        own = ours.get((row["round"], row["case"]), {})
        figures = ("per_s",) if row["case"] == "saturated" else ("p50_ms", "p99_ms")
        if row["name"] == RESIGHT or row.get("overloaded") or own.get("overloaded"):
            continue
        for figure in figures:
            if row.get(figure) and own.get(figure):
                of_peer = found.setdefault(row["name"], {})
                several = of_peer.setdefault(f"{row['case']} {figure}", [])
                several.append(round(own[figure] / row[figure], 3))
    return found


def report(result: Row) -> None:
    table(result["cases"])
    for one in result["failed"]:
        print(f"failed: {one}")
    failures = sum(row["failures"] for row in result["cases"] if row["name"] == RESIGHT)
    verdicts(result, bounds(result, [("failures of Resight", failures, "0", failures == 0)]))
    draw(result)
    keep(result)


def draw(result: Row) -> None:
    with picture(result, 2) as (rate, latency):
        names = [row["name"] for row in result["cases"]]
        rate.barh(names, [row["per_s"] for row in result["cases"]])
        for row in (row for row in result["rounds"] if row["case"] == "saturated"):
            rate.plot(row["per_s"], row["name"], "k.")
        rate.set(xlabel=f"answers a second, {CLIENTS} clients; a dot a round")
        for share in SHARES:
            for rank, style in (("p50_ms", "o"), ("p99_ms", "^")):
                case = f"{rank} at {share:.0%}"
                latency.plot([row[case] for row in result["cases"]], names, style, label=case)
        latency.set(xlabel="ms, open loop, the same rates for all", xscale="log")
        latency.legend()


if __name__ == "__main__":
    main()
