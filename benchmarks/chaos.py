"""Test whether anything that was acknowledged is lost, doubled or mixed up while processes and storage fail.

python benchmarks/chaos.py [--host one|ray] [--store local|s3] [--minutes 60] [--seed N] [--quick]

Clients, promoters and operators work on a host (endurance/work.py) while faults of a schedule hit it
(endurance/schedule.py, faults.py). Everything acknowledged is in books on another disk (endurance/books.py). At the end
an audit compares them with the tables, files and views (endurance/audit.py), first as the faults left them, then after
an ingest of the uploads and a run of each version, which add the rows that a crash may lose.

The schedule depends only on --seed, --minutes and --store. A failure prints the command that repeats it, and keeps the
books. --quick: ten minutes. Verdicts:

lost, doubled, mixed  acknowledged things that are missing, exist twice, or belong to another version: 0
open accounts         runs that claim to be complete and are not, and runs without an end: 0
refused wrongly       statuses other than those that faults may cause, and commands with a traceback: 0
accepted wrongly      requests with a token that was revoked over 6 s before: 0
healthy again         seconds from the last fault until uploads are recorded and every part answers: at most 60
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from harness import MODEL, arguments_of, facts, keep, table, verdicts

from benchmarks.endurance.audit import ACCOUNTS, audit, of_view, read
from benchmarks.endurance.books import Books
from benchmarks.endurance.faults import inject
from benchmarks.endurance.host import FLOORS, Host
from benchmarks.endurance.schedule import schedule
from benchmarks.endurance.work import Keys, Work, until

HEALTHY_S, LOOK_S = 60.0, 180.0
INTERRUPTED_S = 600
"""Shift of the clock after which a run that is silent can be cancelled; five minutes would do."""
SHOWN = 20


def main() -> None:
    arguments = arguments_of(__doc__, options, minutes=60.0, seed=-1)
    if arguments.quick:
        arguments.minutes = min(arguments.minutes, 10.0)
    if arguments.seed < 0:
        arguments.seed = random.SystemRandom().randrange(10**6)
    result = facts("chaos", vars(arguments))
    folder = Path(tempfile.mkdtemp(prefix="rsc-"))
    books = Books(folder / "books.jsonl")
    result |= measure(arguments, folder, books)
    failed = report(result)
    keep(result)
    if failed:
        words = f"--host {arguments.host} --store {arguments.store} --minutes {arguments.minutes:g}"
        print(f"repeat: python benchmarks/chaos.py --seed {arguments.seed} {words}; books: {folder}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", choices=("one", "ray"), default="one", help="`resight serve`, or `resight up`")
    parser.add_argument("--store", choices=("local", "s3"), default="local", help="place of tables and uploads")


def measure(arguments: argparse.Namespace, folder: Path, books: Books) -> dict[str, Any]:
    seconds = arguments.minutes * 60
    faults = schedule(arguments.seed, seconds, arguments.store)
    with Host(arguments.host, arguments.store, folder, books) as host:
        keys = Keys(host)
        work = Work(host, keys, arguments.seed)
        work.prepare()
        work.start()
        try:
            inject(faults, host, keys, seconds)
            healthy_s = until(lambda: is_healthy(host, work), LOOK_S)
        finally:
            work.stop()
        left = audit(books.entries(), read(*host.tables), repaired=False)
        settle(host, work)
        stored = read(*host.tables)
        problems = audit(books.entries(), stored, repaired=True)
        shown = export_shown(host, work)
        problems["mixed"] += [] if shown == of_view(stored) else ["the export of the view differs from the tables"]
    entries = books.entries()
    for account, lines in left.items():
        problems[account] += [f"before repair: {line}" for line in lines if line not in problems[account]]
    return {
        "healthy_s": healthy_s,
        "problems": problems,
        "acknowledged": Counter(entry["kind"] for entry in entries),
        "faults": Counter(entry["fault"] for entry in entries if entry["kind"] == "fault"),
        "skipped": host.missing,
        "killed": Counter(
            str(e["note"]).partition(" ")[2] for e in entries if e["kind"] == "fault" and e["fault"] == "kill"
        ),
        "statuses": Counter(str(entry["status"]) for entry in entries if entry["kind"] == "answer"),
        "commands": Counter(f"{e['words'][0]} {e['code']}" for e in entries if e["kind"] == "command"),
        "rows": {"media": len(stored.media), "results": len(stored.results), "assertions": len(stored.assertions)},
    }


def is_healthy(host: Host, work: Work) -> bool:
    """Return whether an upload is recorded, and the applications of runs and of pages answer."""
    random_ = random.Random("health")
    return (
        host.is_ready()
        and work.upload(random_, wait_s=20)
        and all(work.ask(path, host.secret).outcome == "ok" for path in ("/runs/", "/v1/images", "/ui/v1/assertions"))
    )


def settle(host: Host, work: Work) -> None:
    """Do what the documentation says after a crash: ingest, run each version again, resume or cancel open runs."""
    host.command("ingest", host.tables[1])
    host.command("ingest", str(work.archive))
    for version in FLOORS:
        host.command("reprocess", "--model", f"{MODEL}@{version}", "--status", "failed")
        host.command("reprocess", "--model", f"{MODEL}@{version}")
    for run in host.command("runs", "list", "--most", "1000").out or ():
        if run["state"] in ("running", "interrupted") and run["kind"] == "detect":
            host.command("reprocess", "--model", run["model"], "--run-id", run["run_id"])
        elif run["state"] in ("running", "interrupted"):
            host.move_clock(INTERRUPTED_S)
            host.command("runs", "cancel", run["run_id"], environment=host.environment | host.clock_library)


def export_shown(host: Host, work: Work) -> set[tuple[str, int]]:
    import pyarrow.parquet as pq

    file = host.folder / "shown.parquet"
    if not work.export(file, "detections"):
        return set()
    rows = pq.read_table(file, columns=["media_sha256", "rank"]).to_pylist()
    return {(row["media_sha256"], row["rank"]) for row in rows}


def report(result: dict[str, Any]) -> bool:
    """Print the tables and verdicts; return whether one does not hold."""
    table([{"fault": name, "times": count} for name, count in sorted(result["faults"].items())])
    table([{"acknowledged": name, "times": count} for name, count in sorted(result["acknowledged"].items())])
    problems, healthy_s = result["problems"], result["healthy_s"]
    for account in ACCOUNTS:
        for line in problems[account][:SHOWN]:
            print(f"{account}: {line}", file=sys.stderr)
    rows = [(account, len(problems[account]), "0", not problems[account]) for account in ACCOUNTS]
    healthy = healthy_s is not None and healthy_s <= HEALTHY_S
    verdicts(result, [*rows, ("healthy again, s", healthy_s, f"≤ {HEALTHY_S:g}", healthy)])
    return not all(found["holds"] for found in result["verdicts"].values())


if __name__ == "__main__":
    main()
