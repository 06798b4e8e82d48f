"""How does Resight compare with what one would serve the same detector with, on this machine?

python benchmarks/peers_online.py [--seconds 12] [--rounds 3] [--only fastapi,litserve] [--quick]

Peers run in environments of their own (`peers/online/`), with the same graph, the same decoder and the same
answers. First each configuration of each peer is measured shortly, and its best one taken (`tuning`). Then, in
every round, each is started alone and asked in turn, the order reversed from round to round:

saturated    closed loop, 8 clients: answers a second, CPU seconds per 1,000 images, highest PSS of its processes
open 50 %, open 80 %    Poisson arrivals at the same two rates for all: that share of the median peer's throughput
first_s      from the start of the command to the first answer, model loaded
lines        what its user writes (code and configuration, the detector of `peers/detector.py` included)

Ratios are Resight over a peer within the same round. Targets: throughput at least 1.0 and p99 at most 1.0 of every
peer. The negative control (a session for every request, on the event loop) must come out worse than all others.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness import PHOTO, arguments_of, facts, keep, picture, table, verdicts

from benchmarks.load import Load
from benchmarks.peers.peer import Config
from benchmarks.peers.subjects import RESIGHT, Subject, Up, subjects
from benchmarks.peers.watch import Watch

CLIENTS = 8
SHARES = (0.5, 0.8)
WATCH_S = 5.0
FIGURES = ("per_s", "cpu_s_per_1000", "pss_mib", "first_s")


def main() -> None:
    arguments = arguments_of(__doc__, seconds=12.0, rounds=3, tuning_s=4.0, only="")
    if arguments.quick:
        arguments.seconds, arguments.rounds, arguments.tuning_s = 3.0, 1, 0.0
        arguments.only = arguments.only or "fastapi,control"
    result = facts("peers_online", vars(arguments))
    result |= measure(arguments, subjects([word for word in arguments.only.split(",") if word]))
    report(result)


def measure(arguments: argparse.Namespace, all_of_them: Sequence[Subject]) -> dict[str, Any]:
    jpeg = PHOTO.read_bytes()
    tuning = [row for one in all_of_them for row in tried(one, jpeg, arguments.tuning_s)]
    chosen = {one.name: best(one, tuning) for one in all_of_them}
    rates = open_rates(tuning)
    rounds: list[dict[str, Any]] = []
    for turn in range(arguments.rounds):
        for one in all_of_them[:: 1 if turn % 2 == 0 else -1]:
            print(f"round {turn}: {one.name} …", file=sys.stderr)
            with one.up(chosen[one.name], jpeg) as up:
                if not rates:  # quick: nothing was tried before
                    rates = tuple(share * saturated(up, 2.0)["per_s"] for share in SHARES)
                rounds += [
                    {"round": turn, "name": one.name} | row
                    for row in asked(up, arguments.seconds, rates)
                ]
    facts_of = {
        one.name: {
            "version": one.version,
            "config": chosen[one.name].model_dump(),
            "lines": one.lines,
            "documentation": one.documentation,
        }
        for one in all_of_them
    }
    return {
        "subjects": facts_of,
        "tuning": tuning,
        "open_rates_per_s": rates,
        "rounds": rounds,
        "cases": merged(rounds, facts_of),
        "ratios": ratios(rounds),
    }


def tried(one: Subject, jpeg: bytes, seconds: float) -> list[dict[str, Any]]:
    """Each of its configurations at saturation; nothing when there is no time for it."""
    rows = []
    for config in one.configs if seconds else ():
        print(f"trying {one.name}: {config.name} …", file=sys.stderr)
        with one.up(config, jpeg) as up:
            found = saturated(up, seconds)
        rows.append({"name": one.name, "config": config.name, "per_s": found["per_s"]})
    return rows


def best(one: Subject, tuning: Sequence[dict[str, Any]]) -> Config:
    rates = {row["config"]: row["per_s"] for row in tuning if row["name"] == one.name}
    return max(one.configs, key=lambda config: rates.get(config.name, 0.0))


def open_rates(tuning: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    """Of the median subject's best; the control, whose rate is small, has no part in it."""
    found: dict[str, float] = {}
    for row in tuning:
        found[row["name"]] = max(row["per_s"], found.get(row["name"], 0.0))
    middle = statistics.median(sorted(found.values())[1:]) if len(found) > 1 else None
    return tuple(round(share * middle, 2) for share in SHARES) if middle else ()


def asked(up: Up, seconds: float, rates: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of its cases, from one start."""
    saturated(up, 2.0)  # warm
    with Watch(up.pid, WATCH_S) as watch:
        full = saturated(up, seconds)
    cost = {
        "cpu_s_per_1000": round(watch.cpu_s / full["requests"] * 1e3, 1),
        "pss_mib": round(watch.peak_pss_mib),
        "first_s": round(up.first_answer_s, 2),
    }
    rows = [{"case": "saturated"} | full | cost]
    for share, rate in zip(SHARES, rates, strict=True):
        time.sleep(1.0)
        found = load_of(up, rate=rate, seconds=seconds).run().summary()
        rows.append({"case": f"open {share:.0%}"} | found)
    return rows


def saturated(up: Up, seconds: float) -> dict[str, Any]:
    return load_of(up, clients=CLIENTS, seconds=seconds).run().summary()


def load_of(up: Up, **how: Any) -> Load:
    return replace(Load(up.url, up.path, up.body, up.headers), **how)


def merged(rounds: Sequence[dict[str, Any]], facts_of: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a subject: medians over the rounds."""
    rows: list[dict[str, Any]] = []
    for name, about in facts_of.items():
        own = [row for row in rounds if row["name"] == name]

        def median(case: str, figure: str, own: Sequence[dict[str, Any]] = own) -> float | None:
            values = [row[figure] for row in own if row["case"] == case and figure in row]
            return round(statistics.median(values), 2) if values else None

        row: dict[str, Any] = {
            "name": name,
            "version": about["version"],
            "config": about["config"]["name"],
        }
        row |= {figure: median("saturated", figure) for figure in FIGURES}
        for share in SHARES:
            for rank in ("p50_ms", "p99_ms"):
                row[f"{rank} at {share:.0%}"] = median(f"open {share:.0%}", rank)
        row |= {"lines": about["lines"], "failures": sum(r["failures"] for r in own)}
        rows.append(row)
    return rows


def ratios(rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Peer to figure to Resight over that peer, round by round."""
    found: dict[str, dict[str, list[float]]] = {}
    ours = {(row["round"], row["case"]): row for row in rounds if row["name"] == RESIGHT}
    for row in rounds:
        own = ours[(row["round"], row["case"])]
        figures = ("per_s",) if row["case"] == "saturated" else ("p50_ms", "p99_ms")
        for figure in figures:
            if row["name"] != RESIGHT and row.get(figure) and own.get(figure):
                several = found.setdefault(row["name"], {}).setdefault(
                    f"{row['case']} {figure}", []
                )
                several.append(round(own[figure] / row[figure], 3))
    return found


def report(result: dict[str, Any]) -> None:
    table(result["cases"])
    control = next((name for name in result["subjects"] if "control" in name.lower()), None)
    rows: list[tuple[str, Any, str, bool]] = []
    for name, figures in result["ratios"].items():
        if name == control:
            continue
        for figure, values in figures.items():
            value, more = statistics.median(values), figure.endswith("per_s")
            if "p50" not in figure:
                bound = "≥ 1.0" if more else "≤ 1.0"
                rows.append(
                    (f"{figure} / {name}", value, bound, value >= 1 if more else value <= 1)
                )
    rates = {row["name"]: row["per_s"] for row in result["cases"]}
    if control and len(rates) > 2:
        least = min(rate for name, rate in rates.items() if name != control)
        rows.append(
            ("control: slower than all", rates[control], f"< {least}", rates[control] < least)
        )
    failures = sum(row["failures"] for row in result["cases"] if row["name"] == RESIGHT)
    rows.append(("failures of Resight", failures, "0", failures == 0))
    verdicts(result, rows)
    with picture(result, 2) as (rate, latency):
        names = [row["name"] for row in result["cases"]]
        rate.barh(names, [row["per_s"] for row in result["cases"]])
        rate.set(xlabel=f"answers a second, {CLIENTS} clients")
        for share in SHARES:
            for rank, style in (("p50_ms", "o"), ("p99_ms", "^")):
                case = f"{rank} at {share:.0%}"
                latency.plot([row[case] for row in result["cases"]], names, style, label=case)
        latency.set(xlabel="ms, open loop, the same rates for all", xscale="log")
        latency.legend()
    keep(result)


if __name__ == "__main__":
    main()
