"""How does an archive run compare with what one would write for it oneself, on this machine?

python benchmarks/peers_archive.py [--images 2000] [--size 1920x1080] [--rounds 2] [--only daft] [--quick]

The same files, graph, decoder and suppression for all; peers run in environments of their own (`peers/archive/`) and
write Parquet. First each configuration of each peer is measured on few images, and its best one taken (`tuning`).
Then all run in turn, the order reversed from round to round:

per_s        images a second from the start of the command to its end, imports and the last row included
steady_per_s the same between 10 % and 90 % of the images, where what is written early tells it
first_s      to the first row that a reader could see
lines        what its user writes (the detector of `peers/detector.py` included)

Resight's command is `resight reprocess` on a cluster that is up; what `resight ingest` takes before (digests of all
files) is told beside it. A peer keeps no digests, lineage, ledger or resumption. The negative control (one process,
the session made again for each image) must come out worse than all others. Target: at least every peer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import MODEL, WEIGHTS, arguments_of, facts, keep, picture, table, verdicts

from benchmarks import sized_archive
from benchmarks.first_commit import first_commit
from benchmarks.own_cluster import Cluster, cluster
from benchmarks.peers.archive_runs import ArchivePeer, read_archive_peer, run_peer
from benchmarks.peers.environments import environment
from benchmarks.peers.lines import lines_of
from benchmarks.peers.peer import Config
from benchmarks.peers.watch import Watch
from serve.settings import usable_cores

RESIGHT = "Resight"
ARCHIVE = Path(__file__).resolve().parent / "peers" / "archive"
FIGURES = ("per_s", "steady_per_s", "first_s", "cpu_s_per_1000", "pss_mib")


def main() -> None:
    arguments = arguments_of(
        __doc__, images=2000, rounds=2, tuning_images=200, size="1920x1080", only=""
    )
    if arguments.quick:
        arguments.images, arguments.rounds, arguments.tuning_images = 200, 1, 0
        arguments.only = arguments.only or "multiprocessing,control"
    result = facts("peers_archive", vars(arguments))
    peers = chosen_peers([word for word in arguments.only.split(",") if word])
    with tempfile.TemporaryDirectory(prefix="resight-bench-") as folder:
        archive = Path(folder) / "archive"
        width, height = map(int, arguments.size.split("x"))
        sized_archive.build(archive, arguments.images, (width, height))
        files = sorted(archive.rglob("*.jpg"))
        result |= measure(arguments, peers, archive, files)
    report(result)


def chosen_peers(only: Sequence[str]) -> list[ArchivePeer]:
    """The control last; their environments are made here, before any clock runs."""
    folders = [file.parent for file in sorted(ARCHIVE.glob("*/peer.toml"))]
    folders.sort(key=lambda folder: folder.name == "control")
    wanted = [folder for folder in folders if not only or folder.name in only]
    for folder in wanted:
        environment(folder)
    return [read_archive_peer(folder) for folder in wanted]


def measure(
    arguments: argparse.Namespace,
    peers: Sequence[ArchivePeer],
    archive: Path,
    files: Sequence[Path],
) -> dict[str, Any]:
    tuning = [row for peer in peers for row in tried(peer, files[: arguments.tuning_images])]
    chosen = {peer.name: best(peer, tuning) for peer in peers}
    rounds: list[dict[str, Any]] = []
    with cluster() as up:
        for turn in range(arguments.rounds):
            everyone: list[ArchivePeer | None] = [None, *peers]
            for peer in everyone[:: 1 if turn % 2 == 0 else -1]:
                name = peer.name if peer else RESIGHT
                print(f"round {turn}: {name} …", file=sys.stderr)
                part = (
                    files
                    if not peer or peer.folder.name != "control"
                    else files[: len(files) // 10]
                )
                row = by_peer(peer, chosen[name], part) if peer else by_resight(up, archive, turn)
                rounds.append({"round": turn, "name": name} | row)
    about = {
        peer.name: {
            "version": peer.version,
            "config": chosen[peer.name].model_dump(),
            "lines": lines_of(peer.folder) + lines_of(ARCHIVE.parent / "detector.py"),
            "documentation": peer.documentation,
        }
        for peer in peers
    }
    about = {
        RESIGHT: {"version": "this commit", "config": {"name": "as shipped"}, "lines": 0}
    } | about
    return {
        "subjects": about,
        "tuning": tuning,
        "rounds": rounds,
        "cases": merged(rounds, about),
        "ratios": ratios(rounds),
    }


def tried(peer: ArchivePeer, files: Sequence[Path]) -> list[dict[str, Any]]:
    rows = []
    for config in peer.configs if len(files) and len(peer.configs) > 1 else ():
        print(f"trying {peer.name}: {config.name} …", file=sys.stderr)
        found = by_peer(peer, config, files)
        rows.append({"name": peer.name, "config": config.name, "per_s": found["per_s"]})
    return rows


def best(peer: ArchivePeer, tuning: Sequence[dict[str, Any]]) -> Config:
    rates = {row["config"]: row["per_s"] for row in tuning if row["name"] == peer.name}
    return max(peer.configs, key=lambda config: rates.get(config.name, 0.0))


def by_peer(peer: ArchivePeer, config: Config, files: Sequence[Path]) -> dict[str, Any]:
    run = run_peer(peer.folder, config, files, model=WEIGHTS.parent, cores=usable_cores())
    return {
        "images": run.images,
        "rows": run.rows,
        "errors": run.errors,
        "per_s": run.images_per_s,
        "steady_per_s": run.steady_images_per_s,
        "first_s": run.first_row_s,
        "cpu_s_per_1000": run.cpu_s_per_1000,
        "pss_mib": run.peak_pss_mib,
    }


def by_resight(up: Cluster, archive: Path, turn: int) -> dict[str, Any]:
    """Ingest, then a run to its end; the whole cluster's processes count, at rest or not."""
    tables = {"RESIGHT_TABLES": str(up.home / f"tables-{turn}")}
    began_s = time.perf_counter()
    up.resight("ingest", str(archive), **tables)
    ingest_s = time.perf_counter() - began_s
    began, began_s = time.time(), time.perf_counter()
    with Watch(up.head_pid, 5.0) as watch:
        run = json.loads(up.resight("reprocess", "--model", MODEL, "--format", "json", **tables))
    seconds, counts = time.perf_counter() - began_s, run["counts"]
    return {
        "images": counts["requested"],
        "rows": counts["ok"] + counts["empty"] + counts["failed"],
        "errors": counts["failed"],
        "per_s": counts["requested"] / seconds,
        "steady_per_s": run["steady_images_per_s"],
        "first_s": first_commit(up.home / f"tables-{turn}" / "results") - began,
        "cpu_s_per_1000": watch.cpu_s / counts["requested"] * 1e3,
        "pss_mib": watch.peak_pss_mib,
        "ingest_s": ingest_s,
    }


def merged(rounds: Sequence[dict[str, Any]], about: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a subject: medians over the rounds."""
    rows: list[dict[str, Any]] = []
    for name, facts_of in about.items():
        own = [row for row in rounds if row["name"] == name]

        def median(figure: str, own: Sequence[dict[str, Any]] = own) -> float | None:
            values = [row[figure] for row in own if row.get(figure) is not None]
            return round(statistics.median(values), 2) if values else None

        row = {"name": name, "version": facts_of["version"], "config": facts_of["config"]["name"]}
        row |= {figure: median(figure) for figure in (*FIGURES, "ingest_s")}
        lost = sum(r["images"] - r["rows"] for r in own)
        rows.append(row | {"lines": facts_of["lines"], "lost": lost})
    return rows


def ratios(rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Peer to figure to Resight over that peer, round by round."""
    found: dict[str, dict[str, list[float]]] = {}
    ours = {row["round"]: row for row in rounds if row["name"] == RESIGHT}
    for row in (row for row in rounds if row["name"] != RESIGHT):
        for figure in ("per_s", "steady_per_s"):
            mine, other = ours[row["round"]][figure], row[figure]
            if mine and other:
                several = found.setdefault(row["name"], {}).setdefault(figure, [])
                several.append(round(mine / other, 3))
    return found


def report(result: dict[str, Any]) -> None:
    table(result["cases"])
    control = next((name for name in result["subjects"] if "control" in name.lower()), None)
    rows: list[tuple[str, Any, str, bool]] = [
        (f"{figure} / {name}", statistics.median(values), "≥ 1.0", statistics.median(values) >= 1)
        for name, figures in result["ratios"].items()
        for figure, values in figures.items()
        if name != control
    ]
    rates = {row["name"]: row["per_s"] for row in result["cases"]}
    if control and len(rates) > 2:
        least = min(rate for name, rate in rates.items() if name != control)
        rows.append(
            ("control: slower than all", rates[control], f"< {least}", rates[control] < least)
        )
    lost = sum(row["lost"] for row in result["cases"] if row["name"] == RESIGHT)
    rows.append(("images of Resight without a row", lost, "0", lost == 0))
    verdicts(result, rows)
    with picture(result, 2) as (rate, first):
        names = [row["name"] for row in result["cases"]]
        for figure, style in (("per_s", "o"), ("steady_per_s", "^")):
            rate.plot([row[figure] for row in result["cases"]], names, style, label=figure)
        rate.set(xlabel="images/s", xlim=(0, None))
        rate.legend()
        first.barh(names, [row["first_s"] or 0 for row in result["cases"]])
        first.set(xlabel="seconds to the first row")
    keep(result)


if __name__ == "__main__":
    main()
