"""Does every online peer start here and answer what the libraries alone answer?

python -m benchmarks.peers.online.check [PEER …] [--every-config] [--model FOLDER]

Each is started in turn with its first config and asked for the photographs of examples/photos; the answers are compared
with those of Detector in the same environment. A row each; exit status 1 when one does not start or differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import MODEL, ROOT, table
from benchmarks.peers.commands import PEERS
from benchmarks.peers.environments import environment, made
from benchmarks.peers.peer import Config, Peer, read_peer
from benchmarks.peers.processes import Running, started
from benchmarks.peers.watch import Watch
from model_store.machine import usable_cores

ONLINE = Path(__file__).resolve().parent
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
SCORE, BOX_PX = 1e-3, 0.5  # rounding on the way; another decoder or filter would be far outside

EXPECT = """
import json, sys
from pathlib import Path
from detector import Detector
detector = Detector(sys.argv[1])
print(json.dumps([detector(Path(photo).read_bytes()) for photo in sys.argv[2:]]))
"""


def peers(names: list[str]) -> list[Peer]:
    """Those named, or all that have a peer.toml."""
    folders = sorted(file.parent for file in ONLINE.glob("*/peer.toml"))
    return [read_peer(folder) for folder in folders if not names or folder.name in names]


def expected(python: Path, model: Path) -> list[list[dict[str, Any]]]:
    """What Detector finds on each photograph, in that environment."""
    done = subprocess.run(
        [str(python), "-c", EXPECT, str(model), *map(str, PHOTOS)],
        env={"PYTHONPATH": str(PEERS)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def differences(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> list[str]:
    """In words; empty when they agree."""
    if [one["label"] for one in found] != [one["label"] for one in expected]:
        return [f"labels {[d['label'] for d in found]}, not {[d['label'] for d in expected]}"]
    said: list[str] = []
    for ours, theirs in zip(expected, found, strict=True):
        if abs(ours["score"] - theirs["score"]) > SCORE:
            said.append(f"{ours['label']}: score {theirs['score']}, not {ours['score']}")
        pairs = zip(ours["box_xyxy_px"], theirs["box_xyxy_px"], strict=True)
        if max(abs(a - b) for a, b in pairs) > BOX_PX:
            said.append(f"{ours['label']}: {theirs['box_xyxy_px']}, not {ours['box_xyxy_px']}")
    return said


def compared(running: Running, wanted: list[list[dict[str, Any]]]) -> list[str]:
    """Over all photographs."""
    said: list[str] = []
    for photo, detections in zip(PHOTOS, wanted, strict=True):
        status, answer = running.ask(photo.read_bytes())
        if status != 200:
            said.append(f"{photo.name}: {status} {answer[:200]!r}")
            continue
        found = running.detections(answer)
        said += [f"{photo.name}: {one}" for one in differences(found, detections)]
    return said


def checked(peer: Peer, config: Config, model: Path) -> dict[str, Any]:
    """A row. Says what differs on stderr."""
    wanted: list[list[dict[str, Any]]] = []
    row: dict[str, Any] = {"peer": peer.folder.name, "version": peer.version, "config": config.name}
    try:
        python = environment(peer.folder)
        wanted = expected(python, model)
        facts = made(python)
        row |= {"installed_mib": facts.installed_mib, "install_s": facts.install_s}
        jpeg = PHOTOS[0].read_bytes()
        with started(peer.folder, config, model=model, cores=usable_cores(), jpeg=jpeg, python=python) as running:
            with Watch(running.pid) as watch:
                said = compared(running, wanted)
            row |= {"first_answer_s": running.first_answer_s, "pss_mib": watch.peak_pss_mib}
    except RuntimeError as error:
        said = [str(error)]
    for line in said:
        print(f"{peer.folder.name}: {line}", file=sys.stderr)
    return row | {"detections": sum(map(len, wanted)) if not said else None, "agrees": not said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*")
    parser.add_argument("--every-config", action="store_true")
    parser.add_argument("--model", type=Path, default=ROOT / "examples" / "models" / MODEL / "1")
    options = parser.parse_args()
    rows = [
        checked(peer, config, options.model)
        for peer in peers(options.peers)
        for config in peer.configs[: None if options.every_config else 1]
    ]
    table(rows)
    sys.exit(not all(row["agrees"] for row in rows))


if __name__ == "__main__":
    main()
