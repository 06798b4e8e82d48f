"""Does every archive peer run here and write what the libraries alone find?

python -m benchmarks.peers.archive.check [PEER …] [--every-config] [--images 60] [--model FOLDER]

Each runs over a sample archive with its first config; its rows are compared with those of Detector in the same
environment: exactly one row a file, the same files unreadable, labels, scores and boxes. A row each; exit status 1 when
one does not run or differs. MegaDetector decodes and resizes with other libraries, turns pictures as EXIF says and
rounds, so it is held to its stronger detections, less closely (LOOSER; megadetector/README.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.harness import MODEL, ROOT, table
from benchmarks.peers.archive_runs import PeerRun, read_archive_peer, run_peer
from benchmarks.peers.commands import PEERS, PeerFailed
from benchmarks.peers.environments import environment, made
from benchmarks.peers.lines import lines_of
from benchmarks.peers.peer import Config
from examples import sample_archive
from examples.archive_plan import plan
from model_store.machine import usable_cores

ARCHIVE = Path(__file__).resolve().parent
Rows = dict[str, dict[str, Any]]
"""By path: error, detections."""
Detection = tuple[str, float, list[float]]
"""Label, score, box."""


@dataclass(frozen=True)
class Bounds:
    """How near a detection must be to one of Detector's with the same label; weaker ones are left out."""

    score: float
    box_px: float = float("inf")
    iou: float = 0.0
    least_score: float = 0.0


EXACT = Bounds(score=1e-3, box_px=0.5)
LOOSER = Bounds(score=0.15, iou=0.85, least_score=0.3)
OTHERWISE = ("cmyk_jpeg", "grey16_png")
"""Kinds of file that MegaDetector does not read."""

EXPECT = """
import json, sys
from pathlib import Path
from detector import Detector
detector = Detector(sys.argv[1])
for path in sys.stdin.read().splitlines():
    try:
        row = {"error": None, "detections": detector(Path(path).read_bytes())}
    except ValueError as error:
        row = {"error": str(error), "detections": []}
    print(json.dumps({"path": path} | row))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*")
    parser.add_argument("--every-config", action="store_true")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--model", type=Path, default=ROOT / "examples" / "models" / MODEL / "1")
    options = parser.parse_args()
    folders = sorted(file.parent for file in ARCHIVE.glob("*/peer.toml"))
    chosen = [folder for folder in folders if not options.peers or folder.name in options.peers]
    with tempfile.TemporaryDirectory(prefix="rsp-") as scratch:
        archive = Path(scratch) / "archive"
        sample_archive.build(archive, options.images)
        shots = plan(options.images, seed=0)
        odd = {str(archive / s.path) for s in shots if s.orientation != 1 or s.kind in OTHERWISE}
        files = sorted(file for file in archive.rglob("*") if file.is_file())
        wanted = expected(files, options.model)
        rows = [
            checked(folder, config, wanted, odd, options.model)
            for folder in chosen
            for config in read_archive_peer(folder).configs[: None if options.every_config else 1]
        ]
    table(rows)
    sys.exit(not all(row["agrees"] for row in rows))


def expected(files: Sequence[Path], model: Path) -> Rows:
    """What Detector finds, in the environment of the hand-written loop."""
    done = subprocess.run(
        [str(environment(ARCHIVE / "multiprocessing")), "-c", EXPECT, str(model)],
        input="\n".join(map(str, files)),
        env={"PYTHONPATH": str(PEERS)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (json.loads(line) for line in done.stdout.splitlines())
    return {row["path"]: row for row in rows}


def checked(folder: Path, config: Config, wanted: Rows, odd: set[str], model: Path) -> dict[str, Any]:
    """A row. Says what differs on stderr."""
    peer = read_archive_peer(folder)
    row: dict[str, Any] = {"peer": folder.name, "version": peer.version, "config": config.name}
    row |= {"lines": lines_of(folder)}
    run: PeerRun | None = None
    with tempfile.TemporaryDirectory(prefix="rsp-rows-") as scratch:
        try:
            files, out = [Path(path) for path in wanted], Path(scratch)
            facts = made(environment(folder))
            row |= {"installed_mib": facts.installed_mib}
            run = run_peer(folder, config, files, model=model, cores=usable_cores(), out=out)
            loose = folder.name == "megadetector"
            bounds, left_out = (LOOSER, odd) if loose else (EXACT, set[str]())
            said = differences(rows_in(out), wanted, left_out, bounds)
        except (PeerFailed, RuntimeError) as error:
            said = [str(error)]
    for line in said:
        print(f"{folder.name}: {line}", file=sys.stderr)
    if run:
        row |= {"images_per_s": run.images_per_s, "first_row_s": run.first_row_s}
        row |= {"cpu_s_per_1000": run.cpu_s_per_1000, "pss_mib": run.peak_pss_mib}
    return row | {"agrees": not said}


def rows_in(out: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(out.rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def differences(rows: Sequence[dict[str, Any]], wanted: Rows, left_out: set[str], bounds: Bounds) -> list[str]:
    """In words; empty when they agree. Of files that are left out the number of rows alone matters."""
    paths = [row["path"] for row in rows]
    if sorted(paths) != sorted(wanted):
        return [f"{len(paths)} rows of {len(set(paths))} files, not one for each of {len(wanted)}"]
    said: list[str] = []
    for row in (row for row in rows if row["path"] not in left_out):
        name, other = Path(row["path"]).name, wanted[row["path"]]
        if (row["error"] is None) != (other["error"] is None):
            said.append(f"{name}: error {row['error']!r}, not {other['error']!r}")
        said += [f"{name}: {one}" for one in _differ(row, other, bounds)]
    return said


def _differ(row: dict[str, Any], other: dict[str, Any], bounds: Bounds) -> list[str]:
    """Each detection of one side has its match on the other."""
    ours = [(one["label"], one["score"], one["box_xyxy_px"]) for one in other["detections"]]
    theirs = [(one["label"], one["score"], one["box"]) for one in row["detections"]]
    said = [f"{one} is missing" for one in ours if not _found(one, theirs, bounds)]
    said += [f"{one} is not among Detector's" for one in theirs if not _found(one, ours, bounds)]
    if bounds.least_score == 0.0 and len(ours) != len(theirs):
        said.append(f"{len(theirs)} detections, not {len(ours)}")
    return said


def _found(one: Detection, others: Sequence[Detection], bounds: Bounds) -> bool:
    label, score, box = one
    return score < bounds.least_score or any(
        other_label == label
        and abs(other_score - score) <= bounds.score
        and max(abs(a - b) for a, b in zip(other_box, box, strict=True)) <= bounds.box_px
        and _iou(other_box, box) >= bounds.iou
        for other_label, other_score, other_box in others
    )


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Of boxes x1 y1 x2 y2."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both / (areas - both) if areas > both else 0.0


if __name__ == "__main__":
    main()
