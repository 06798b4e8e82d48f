"""Test whether a run that is killed, at any point and on any store, loses or duplicates a row; count repeated work.

python benchmarks/crash_matrix.py

Runs every case of tests/batch/crash on a local folder and on an S3 server behind a proxy that injects failures. The
driver is killed in the middle of its commits. The stage before it is a fake without inference, so that repeated
images can be counted. `redone`: images inferred more than once in total; `interval`: images per commit. Concurrent
drivers of the same work each do all of it, which does not count as repeated after a crash. `seconds` is the sum over
the drivers. Prints the table; the last line of standard output is its JSON.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import arguments_of, facts, keep, table, verdicts

from tests.batch.crash import places
from tests.batch.crash.cases import cases
from tests.batch.crash.driver import INTERVAL_IMAGES
from tests.batch.crash.matrix import Case, Place, expected_exits, play
from tests.support.s3_server import CREDENTIALS, s3_server


def main() -> None:
    arguments = arguments_of(__doc__)
    result = facts("crash_matrix", vars(arguments))
    with tempfile.TemporaryDirectory(prefix="resight-crash-") as folder:
        local, remote = Path(folder) / "local", Path(folder) / "s3"
        local.mkdir()
        remote.mkdir()
        rows = played(places.local(local), arguments.quick)
        with s3_server() as endpoint:
            os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=endpoint)
            with places.s3(remote, endpoint) as place:
                rows += played(place, arguments.quick)
    table(rows)
    result["rows"] = rows
    total = {name: sum(row[name] for row in rows) for name in ("duplicates", "lost", "wrong")}
    more = [row for row in rows if not row["held"]]
    verdicts(
        result,
        [
            *((name, value, "0", value == 0) for name, value in total.items()),
            ("cases that did not end as they must", len(more), "0", not more),
        ],
    )
    keep(result)
    sys.exit(bool(more))


def played(place: Place, quick: bool) -> list[dict[str, Any]]:
    return [row(case, place) for case in cases(place.store)[:: 8 if quick else 1]]


def row(case: Case, place: Place) -> dict[str, Any]:
    found = play(case, place)
    most = found.redone if case.redone is None else case.redone
    held = (
        (found.duplicates, found.lost, found.wrong) == (0, 0, 0)
        and found.redone <= most
        and found.exits == expected_exits(case)
        and found.states == list(case.states)
    )
    print(f"{place.store}  {case.name}: {'holds' if held else 'DOES NOT HOLD'}", file=sys.stderr)
    return {
        "case": case.name,
        "store": place.store,
        "rows": found.rows,
        "duplicates": found.duplicates,
        "lost": found.lost,
        "wrong": found.wrong,
        "redone": found.redone,
        "interval": INTERVAL_IMAGES,
        "seconds": round(found.seconds, 2),
        "held": held,
    }


if __name__ == "__main__":
    main()
