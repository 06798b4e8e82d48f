"""Test whether a server under mixed load keeps its memory, files, threads and latency for hours.

python benchmarks/soak.py [--host one|ray] [--hours 2] [--share 0.6] [--control leak] [--quick]

Detections arrive in an open loop at `share` of the measured saturation. Every minute the alias moves to another
version, and pictures are uploaded; every five minutes a run, a compaction and an export follow. All processes of the
host are sampled; those that live for the whole time are judged after the first quarter, when caches are full.

RSS         slope by least squares of medians of 40 windows, less two standard errors: at most 1 % of the mean an hour
fds, threads  most of the last quarter over most of the second one: at most 10 % and 8 more
log         bytes an answer: at most 2,000
disk        growth of the last quarter over that of the second one: at most 1.5; uploads and tables grow evenly
p99         median of the windows of the last quarter over that of the second one: at most 1.25
429         answers of a full queue, which a run beside the load can fill for a moment: at most 1 %
--control leak  adds a process that leaks a tenth of its memory and 60 files over the whole time: it must be caught
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from harness import MODEL, arguments_of, facts, keep, need, picture, table, verdicts
from numpy.typing import NDArray

from benchmarks.endurance.books import Books
from benchmarks.endurance.faults import role_of
from benchmarks.endurance.host import FLOORS, Host
from benchmarks.endurance.work import PHOTOS, Keys, Work
from benchmarks.load import Load
from benchmarks.records import Records

WINDOWS, SAMPLE_S, UPLOADS, OPERATE_EVERY = 40, 5.0, 6, 5
RSS_PER_HOUR, P99_RATIO, DISK_RATIO, LOG_BYTES, MORE_FRAC, MORE, REJECTED_FRAC = 0.01, 1.25, 1.5, 2_000, 0.1, 8, 0.01
LEAK = """
import tempfile, time
held, files, block = [bytearray(b"x") * (64 << 20)], [], 0
while True:
    time.sleep(1)
    block += 1
    held.append(b"x" * {leak_bytes})
    if block % {file_every_s} == 0:
        files.append(tempfile.TemporaryFile())
"""
LEAKED_FRAC, LEAKED_FILES = 0.1, 60  # over the whole time
Samples = dict[
    tuple[int, str], list[tuple[float, int, int, int]]
]  # (pid, role) -> (seconds, RSS bytes, files, threads)


def main() -> None:
    arguments = arguments_of(__doc__, options, hours=2.0, share=0.6)
    need("matplotlib")
    if arguments.quick:
        arguments.hours = min(arguments.hours, 0.1)
    result = facts("soak", vars(arguments))
    with tempfile.TemporaryDirectory(prefix="rsc-", ignore_cleanup_errors=True) as folder:
        result |= measure(arguments, Path(folder))
    sys.exit(report(result, arguments.control))


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", choices=("one", "ray"), default="one", help="`resight serve`, or `resight up`")
    parser.add_argument("--control", choices=("none", "leak"), default="none", help="a process that must be caught")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    seconds = arguments.hours * 3600
    with Host(arguments.host, "local", folder, Books(folder / "books.jsonl")) as host:
        work = Work(host, Keys(host), seed=0, clients=0)
        work.prepare()
        token = (("Authorization", f"Bearer {host.secret}"),)
        load = Load(host.url, f"/v1/detect?min_score=0&model={MODEL}", PHOTOS["cat"], headers=token)
        full = replace(load, clients=4, seconds=10).run().summary()["per_s"]
        with control(arguments.control, host, seconds), watched(host) as (samples, sizes):
            began_s = time.perf_counter()
            running = replace(load, rate=arguments.share * full).start()
            try:
                mixed(host, work, seconds)
            finally:
                records = running.stop()
    return {
        "saturated_per_s": full,
        "rate_per_s": round(arguments.share * full, 2),
        "answers": records.summary(),
        "processes": processes(samples, began_s, seconds),
        "p99_ms": p99(records, began_s, seconds),
        "log_bytes": [log for _, log, _ in sizes],
        "disk_bytes": [disk for _, _, disk in sizes],
        "sizes_s": [round(at - began_s, 1) for at, _, _ in sizes],
    }


def mixed(host: Host, work: Work, seconds: float) -> None:
    """Promote a version and upload pictures every minute; process the archive every five."""
    draw, end_s, minute = random.Random(0), time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        next_s = min(end_s, time.monotonic() + 60)
        work.promote(sorted(FLOORS)[minute % len(FLOORS)])
        for _ in range(UPLOADS):
            work.upload(draw, wait_s=0)
        if minute % OPERATE_EVERY == 1:
            host.command("reprocess", "--model", f"{MODEL}@1")
            host.command("compact", "--min-files", "16")
            work.export(host.folder / f"{minute}.parquet", "detections")
        minute += 1
        time.sleep(max(0.0, next_s - time.monotonic()))


@contextlib.contextmanager
def control(kind: str, host: Host, seconds: float) -> Iterator[None]:
    """Run a leaking process of the host during the block, with its environment, so that it is sampled."""
    if kind == "none":
        yield
        return
    leaked = int((64 << 20) * LEAKED_FRAC / seconds)
    script = host.folder / "leak.py"
    script.write_text(LEAK.format(leak_bytes=leaked, file_every_s=max(1, int(seconds / LEAKED_FILES))))
    process = subprocess.Popen([sys.executable, str(script)], env=host.environment)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def watched(host: Host) -> Iterator[tuple[Samples, list[tuple[float, int, int]]]]:
    """Sample processes, and the sizes of logs and of the home, in a thread during the block."""
    samples: Samples = defaultdict(list)
    sizes, ended = list[tuple[float, int, int]](), threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            now_s = time.perf_counter()
            for process in host.processes():
                with contextlib.suppress(psutil.Error):
                    row = (now_s, process.memory_info().rss, process.num_fds(), process.num_threads())
                    samples[process.pid, role_of(process)].append(row)
            log = (host.folder / "host.log").stat().st_size
            sizes.append((now_s, log, psutil.disk_usage(str(host.home)).used))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples, sizes
    finally:
        ended.set()
        thread.join()


def processes(samples: Samples, began_s: float, seconds: float) -> list[dict[str, Any]]:
    """Return the medians of each window for processes that live for the whole time."""
    rows = []
    for (pid, role), series in sorted(samples.items()):
        columns = np.array(series, float).T
        if columns[0][0] > began_s + seconds / 8 or columns[0][-1] < began_s + seconds * 7 / 8:
            continue
        at = (columns[0] - began_s) / seconds
        _, rss_bytes, fds, threads = columns
        row = {"rss_mib": windows(at, rss_bytes / 2**20, np.median)}
        row |= {"fds": windows(at, fds, np.max), "threads": windows(at, threads, np.max)}
        rows.append({"pid": pid, "role": role, **row})
    return rows


def windows(at: NDArray[Any], values: NDArray[Any], reduce: Callable[[NDArray[Any]], Any]) -> list[float | None]:
    """Return a value for each of WINDOWS parts of the time; `at` is from 0 to 1, None is a part without samples."""
    part = np.floor(at * WINDOWS)
    return [round(float(reduce(values[part == i])), 2) if (part == i).any() else None for i in range(WINDOWS)]


def p99(records: Records, began_s: float, seconds: float) -> list[float | None]:
    good = records.where(records.status == 200)
    return windows((good.due_s - began_s) / seconds, good.latency_ms, lambda ms: np.percentile(ms, 99))


def slope_per_hour(values: Sequence[float | None], hours: float) -> tuple[float, float]:
    """Return slope and standard error as shares of the mean, by least squares after the first quarter."""
    kept = [(i * hours / WINDOWS, v) for i, v in enumerate(values) if v is not None and i >= WINDOWS // 4]
    at, seen = np.array(kept).T
    (slope, _), covariance = np.polyfit(at, seen, 1, cov="unscaled")
    left = seen - np.polyval(np.polyfit(at, seen, 1), at)
    error = np.sqrt(covariance[0, 0] * (left**2).sum() / max(1, len(seen) - 2))
    return float(slope / seen.mean()), float(error / seen.mean())


def ends(values: Sequence[float | None], reduce: Callable[[list[float]], Any] = max) -> tuple[float, float]:
    """Return the reduced second and last quarter."""
    quarter = len(values) // 4
    parts = (values[quarter : 2 * quarter], values[-quarter:])
    before, after = (float(reduce([v for v in part if v is not None])) for part in parts)
    return before, after


def judge(result: dict[str, Any], hours: float) -> list[tuple[str, Any, str, bool]]:
    rows: list[tuple[str, Any, str, bool]] = []
    for one in result["processes"]:
        slope, error = slope_per_hour(one["rss_mib"], hours)
        one["slope_per_hour"], one["error"] = round(slope, 4), round(error, 4)
        name = f"{one['role']} {one['pid']}"
        value = f"{slope:+.2%} ± {2 * error:.2%}"
        rows.append((f"RSS an hour, {name}", value, f"≤ {RSS_PER_HOUR:.0%}", slope - 2 * error <= RSS_PER_HOUR))
        for kind in ("fds", "threads"):
            before, after = ends(one[kind])
            holds = after <= before * (1 + MORE_FRAC) + MORE
            rows.append((f"{kind}, {name}", f"{before:g} → {after:g}", f"≤ {MORE_FRAC:.0%} and {MORE} more", holds))
    growth = {name: np.diff(result[f"{name}_bytes"]) for name in ("log", "disk")}
    log = float(growth["log"].sum()) / max(1, result["answers"]["requests"])
    rows.append(("log, bytes an answer", round(log), f"≤ {LOG_BYTES:,}", log <= LOG_BYTES))
    before, after = ends(growth["disk"].tolist(), sum)
    rows.append(("disk, growth", round(after / max(1, before), 2), f"≤ {DISK_RATIO}", after <= DISK_RATIO * before))
    before, after = ends(result["p99_ms"], lambda values: np.median(values))
    rows.append(("p99, last / second quarter", round(after / before, 3), f"≤ {P99_RATIO}", after <= P99_RATIO * before))
    answers = result["answers"]
    rejected = answers["statuses"].get("429", 0)
    failures, share = answers["failures"] - rejected, rejected / max(1, answers["requests"])
    rows.append(("rejected answers (429), share", share, f"≤ {REJECTED_FRAC:.0%}", share <= REJECTED_FRAC))
    return [*rows, ("failed answers", failures, "0", failures == 0)]


def report(result: dict[str, Any], kind: str) -> bool:
    """Print and keep the result; return whether it is bad: a bound that does not hold, or a control not caught."""
    rows = judge(result, result["config"]["hours"])
    if kind == "leak":
        caught = [row for row in rows if " leak" in row[0] and not row[3]]
        rows = [("control: bounds broken by the leak", len(caught), "≥ 1", bool(caught))]
    table([{"process": one["role"], "pid": one["pid"], "slope": one["slope_per_hour"]} for one in result["processes"]])
    verdicts(result, rows)
    with picture(result, 2) as (memory, latency):
        for one in result["processes"]:
            memory.plot(one["rss_mib"], label=f"{one['role'][:30]} {one['slope_per_hour']:+.1%}/h")
        memory.set(xlabel="window", ylabel="RSS, MiB", ylim=(0, None))
        memory.legend(fontsize=6)
        latency.plot(result["p99_ms"])
        latency.set(xlabel="window", ylabel="p99, ms", ylim=(0, None))
    keep(result)
    return not all(found["holds"] for found in result["verdicts"].values())


if __name__ == "__main__":
    main()
