"""Compare an archive run with programs written for the same task in other frameworks, on this machine.

python benchmarks/peers_archive.py [--images 2000] [--size 1920x1080] [--rounds 2] [--jpeg-shrink 8]
                                   [--only daft] [--quick]

All use the same files, graph, decoder and suppression; peers run in separate environments (`peers/archive/`) and
write Parquet. First, each configuration of each peer is measured on some images, and the best one is used (`tuning`).
Then all run one after the other, in reverse order in every other round:

per_s         images per second from the start of the command to its end, including imports and the last row
steady_per_s  the same between 10 % and 90 % of the images, if it can be computed from early writes
cold_per_s    for Resight: including `resight ingest` (digests and EXIF of all files) and, on Ray, `resight up`;
              for a peer, which has no such steps: its per_s
first_s       from the start of the command to the first row that is visible to readers
lines         lines of code of the user (with `peers/detector.py` if it is imported)

The per_s of Resight is that of `resight reprocess` on a catalogued archive, without a cluster; "Resight on Ray" is the
same on a running cluster, whose CPU seconds and memory are sampled as a whole until its last job has ended. Peers have
no digests, lineage, ledger or resumption. With --jpeg-shrink, Resight decodes JPEGs at up to this fraction, and peers
at the smallest scale of libjpeg-turbo that suffices; MegaDetector's script cannot and is left out. The negative
control (one process, a new session for each image) processes a tenth of the files and must be slower than all others.
Target: at least as fast as every peer. A failed peer is reported; the others still run.
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

from harness import MODEL, WEIGHTS, arguments_of, facts, keep, need, picture, table, verdicts

from benchmarks import sized_archive
from benchmarks.first_commit import first_commit
from benchmarks.own_cluster import cluster, model_of
from benchmarks.peers.archive_runs import ArchivePeer, read_archive_peer, run_peer
from benchmarks.peers.compared import FAILURES, Row, bounds, made
from benchmarks.peers.environments import packages
from benchmarks.peers.lines import lines_of
from benchmarks.peers.peer import Config
from benchmarks.peers.subjects import CONTROL, ON_RAY, RESIGHT, folders_of
from benchmarks.peers.watch import Watch
from benchmarks.subject import SHIPPED, Subject
from model_store.machine import usable_cores

ARCHIVE = Path(__file__).resolve().parent / "peers" / "archive"
FIGURES = ("per_s", "steady_per_s", "cold_per_s", "first_s", "cpu_s_per_1000", "pss_mib")
WITHOUT_SCALES = ("megadetector",)
"""Peers that cannot decode JPEGs at a fraction of their size."""
CONTROL_PART = 10
DRIVER_GOES_S = 8.0
"""Time in which the processes of a job end after its report; they count for the measurement."""


def main() -> None:
    arguments = arguments_of(
        __doc__, images=2000, rounds=2, tuning_images=400, size="1920x1080", jpeg_shrink=1, only=""
    )
    need("matplotlib")
    if arguments.quick:
        arguments.images, arguments.rounds, arguments.tuning_images = 200, 1, 0
        arguments.only = arguments.only or "multiprocessing,control"
    result = facts("peers_archive", vars(arguments))
    folders = folders_of(ARCHIVE, [word for word in arguments.only.split(",") if word])
    with tempfile.TemporaryDirectory(prefix="resight-bench-") as folder:
        archive = Path(folder) / "archive"
        width, height = map(int, arguments.size.split("x"))
        sized_archive.build(archive, arguments.images, (width, height))
        peers = [read_archive_peer(one) for one in folders]
        if arguments.jpeg_shrink > 1:
            peers = [scaled(peer) for peer in peers if peer.folder.name not in WITHOUT_SCALES]
        result |= measure(arguments, peers, archive)
    report(result)


def measure(arguments: argparse.Namespace, peers: Sequence[ArchivePeer], archive: Path) -> Row:
    files = sorted(archive.rglob("*.jpg"))
    failed, rounds = list[Row](), list[Row]()
    ready = [peer for peer in peers if made(peer.folder, peer.name, failed)]
    tuning = [row for p in ready for row in tried(p, files[: arguments.tuning_images], failed)]
    chosen = {peer.name: best(peer, tuning) for peer in ready}
    for turn in range(arguments.rounds):
        everyone: list[ArchivePeer | str] = [RESIGHT, ON_RAY, *ready]
        for peer in everyone[:: 1 if turn % 2 == 0 else -1]:
            name = peer if isinstance(peer, str) else peer.name
            print(f"round {turn}: {name} …", file=sys.stderr)
            try:
                is_own = isinstance(peer, str)
                row = by_resight(peer, archive, arguments) if is_own else by_peer(peer, chosen[name], files)
                rounds.append({"round": turn, "name": name} | row)
            except FAILURES as error:
                failed.append({"name": name, "round": turn, "error": str(error)[-2000:]})
    own = {"version": "this commit", "config": {"name": "as shipped"}, "lines": 0}
    subjects: Row = {RESIGHT: own, ON_RAY: own}
    subjects |= {peer.name: about(peer, chosen[peer.name]) for peer in ready}
    subjects = {n: of for n, of in subjects.items() if any(row["name"] == n for row in rounds)}
    return {
        "subjects": subjects,
        "failed": failed,
        "tuning": tuning,
        "rounds": rounds,
        "cases": merged(rounds, subjects),
        "ratios": ratios(rounds),
    }


def scaled(peer: ArchivePeer) -> ArchivePeer:
    """Return the peer with scaled decoding in each of its configurations."""
    configs = [one.model_copy(update={"env": {**one.env, "PEER_SCALED": "1"}}) for one in peer.configs]
    return peer.model_copy(update={"configs": configs})


def about(peer: ArchivePeer, config: Config) -> Row:
    own = peer.folder / peer.command[-1]
    needs = "from detector import" in own.read_text()
    lines = lines_of(own) + (lines_of(ARCHIVE.parent / "detector.py") if needs else 0)
    said = {"version": peer.version, "config": config.model_dump(), "lines": lines}
    control = peer.folder.name == CONTROL
    known = {"documentation": peer.documentation, "packages": packages(peer.folder)}
    return said | known | {"control": control}


def tried(peer: ArchivePeer, files: Sequence[Path], failed: list[Row]) -> list[Row]:
    rows = []
    for config in peer.configs if len(files) and len(peer.configs) > 1 else ():
        print(f"trying {peer.name}: {config.name} …", file=sys.stderr)
        try:
            found = by_peer(peer, config, files)
            names = ("per_s", "steady_per_s")
            rows.append({"name": peer.name, "config": config.name} | {n: found[n] for n in names})
        except FAILURES as error:
            failed.append({"name": peer.name, "config": config.name, "error": str(error)[-2000:]})
    return rows


def best(peer: ArchivePeer, tuning: Sequence[Row]) -> Config:
    """Return the best configuration by steady state if all have one; with few images, the start dominates."""
    own = [row for row in tuning if row["name"] == peer.name]
    figure = "steady_per_s" if all(row["steady_per_s"] for row in own) else "per_s"
    rates = {row["config"]: row[figure] for row in own}
    return max(peer.configs, key=lambda config: rates.get(config.name, 0.0))


def by_peer(peer: ArchivePeer, config: Config, files: Sequence[Path]) -> Row:
    part = files[: len(files) // CONTROL_PART] if peer.folder.name == CONTROL else files
    run = run_peer(peer.folder, config, part, model=WEIGHTS.parent, cores=usable_cores())
    return {
        "images": run.images,
        "rows": run.rows,
        "errors": run.errors,
        "per_s": run.images_per_s,
        "steady_per_s": run.steady_images_per_s,
        "cold_per_s": run.images_per_s,
        "first_s": run.first_row_s,
        "cpu_s_per_1000": run.cpu_s_per_1000,
        "pss_mib": run.peak_pss_mib,
    }


def by_resight(name: str, archive: Path, arguments: argparse.Namespace) -> Row:
    """Run Resight without a cluster, or on a separate one, which ends before the next one starts."""
    up_s = time.perf_counter()
    with cluster(here=name == RESIGHT) as up:
        up_s = time.perf_counter() - up_s
        model = model_of(up, Subject(SHIPPED, MODEL), arguments.jpeg_shrink)
        ingest_s = time.perf_counter()
        up.resight("ingest", str(archive))
        ingest_s = time.perf_counter() - ingest_s
        began, began_s = time.time(), time.perf_counter()
        command = up.started("reprocess", "--model", model, "--format", "json")
        with command, Watch(up.head_pid if name == ON_RAY else command.pid) as watch:
            out, _ = command.communicate()
            seconds = time.perf_counter() - began_s
            time.sleep(DRIVER_GOES_S if name == ON_RAY else 0.0)
        run = json.loads(out)
        first_s = first_commit(up.home / "tables" / "results") - began
    counts = run["counts"]
    return {
        "images": counts["requested"],
        "rows": counts["ok"] + counts["empty"] + counts["failed"],
        "errors": counts["failed"],
        "per_s": counts["requested"] / seconds,
        "steady_per_s": run["steady_images_per_s"],
        "cold_per_s": counts["requested"] / (up_s + ingest_s + seconds),
        "first_s": first_s,
        "cpu_s_per_1000": watch.cpu_s / counts["requested"] * 1e3,
        "pss_mib": watch.peak_pss_mib,
        "up_s": up_s,
        "ingest_s": ingest_s,
    }


def merged(rounds: Sequence[Row], subjects: Row) -> list[Row]:
    """Return a row per subject: medians over the rounds, and the extremes of its rate."""
    rows: list[Row] = []
    for name, of in subjects.items():
        own = [row for row in rounds if row["name"] == name]

        def median(figure: str, own: Sequence[Row] = own) -> float | None:
            values = [row[figure] for row in own if row.get(figure) is not None]
            return round(statistics.median(values), 2) if values else None

        row: Row = {"name": name, "version": of["version"], "config": of["config"]["name"]}
        row |= {figure: median(figure) for figure in FIGURES}
        rates = [one["per_s"] for one in own]
        row |= {"spread": f"{min(rates):.1f} to {max(rates):.1f}", "lines": of["lines"]}
        errors, lost = (sum(values) for values in zip(*map(_missing, own), strict=True))
        rows.append(row | {"errors": errors, "lost": lost})
    return rows


def _missing(row: Row) -> tuple[int, int]:
    return row["errors"], row["images"] - row["rows"]


def ratios(rounds: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Map each peer and figure to the ratio of Resight over that peer in each round."""
    found: dict[str, dict[str, list[float]]] = {}
    ours = {row["round"]: row for row in rounds if row["name"] == RESIGHT}
    for row in (row for row in rounds if row["name"] != RESIGHT and row["round"] in ours):
        for figure in ("per_s", "steady_per_s", "cold_per_s"):
            mine, other = ours[row["round"]][figure], row[figure]
            if mine and other:
                several = found.setdefault(row["name"], {}).setdefault(figure, [])
                several.append(round(mine / other, 3))
    return found


def report(result: Row) -> None:
    table(result["cases"])
    for one in result["failed"]:
        print(f"failed: {one}")
    wrong = sum(row["errors"] + row["lost"] for row in result["cases"])
    own = ("images without detections of anybody", wrong, "0", wrong == 0)
    verdicts(result, bounds(result, [own]))
    draw(result)
    keep(result)


def draw(result: Row) -> None:
    with picture(result, 2) as (rate, first):
        names = [row["name"] for row in result["cases"]]
        for figure, style in (("per_s", "o"), ("steady_per_s", "^"), ("cold_per_s", "v")):
            rate.plot([row[figure] for row in result["cases"]], names, style, label=figure)
        rate.set(xlabel="images/s", xlim=(0, None))
        rate.legend()
        first.barh(names, [row["first_s"] or 0 for row in result["cases"]])
        first.set(xlabel="seconds to the first row")


if __name__ == "__main__":
    main()
