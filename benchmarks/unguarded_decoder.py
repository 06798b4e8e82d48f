"""Negative control of `hostile_images.py`: decode images that a replica refuses with OpenCV alone, in a process.

It must fail: crash, not end in time, or take more memory than the replica with similar images. The process is limited
to `most_mib` of address space and `LONGEST_S`, so that the machine survives.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from tests.hostile_bombs import animated_png, table_bombs

LONGEST_S = 20.0
TOO_SLOW = "too slow"
_DECODE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2)
import cv2, numpy
picture = cv2.imdecode(numpy.frombuffer(sys.stdin.buffer.read(), numpy.uint8), cv2.IMREAD_COLOR)
status = open("/proc/self/status").read()
print("refused" if picture is None else "decoded", int(status.split("VmHWM:")[1].split()[0]) >> 10)
"""


def controls(memory: list[dict[str, Any]], most_mib: int) -> list[dict[str, Any]]:
    """Decode two bombs of at most 1 MiB; compare with the peaks of the replica from the rows of its `memory`."""
    bombs = {"png_animated": animated_png()}
    bombs["tiff_tags_that_overlap"] = table_bombs(1)["tiff_tags_that_overlap"][1]
    replica_mib = {row["after"]: row["peak_mib"] for row in memory}
    return [
        {"OpenCV alone": name, **unguarded(body, most_mib), "replica_mib": replica_mib.get(name, 0)}
        for name, body in bombs.items()
    ]


def bounds(rows: list[dict[str, Any]]) -> list[tuple[str, Any, str, bool]]:
    """Return a verdict on each control: it must have failed."""
    found: list[tuple[str, Any, str, bool]] = []
    for row in rows:
        dead = row["ended"] == TOO_SLOW or row["ended"].startswith("signal")
        value = row["ended"] if row["peak_mib"] is None else f"{row['peak_mib']} MiB"
        harmed = dead or (row["peak_mib"] or 0) > row["replica_mib"]
        bound = f"> {row['replica_mib']} MiB, or dead"
        found.append((f"control: OpenCV, {row['OpenCV alone']}", value, bound, harmed))
    return found


def unguarded(body: bytes, most_mib: int) -> dict[str, Any]:
    """Return `ended` (decoded, refused, too slow, or the signal or exit code of a crash) and `peak_mib` (None then)."""
    command = [sys.executable, "-c", _DECODE, str(most_mib)]
    began_s = time.perf_counter()
    words: list[bytes] = []
    try:
        done = subprocess.run(command, input=body, capture_output=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        ended = TOO_SLOW
    else:
        words, code = done.stdout.split(), done.returncode
        ended = f"signal {-code}" if code < 0 else words[0].decode() if words else f"exit {code}"
    peak_mib = int(words[1]) if words else None
    return {"ended": ended, "peak_mib": peak_mib, "s": round(time.perf_counter() - began_s, 2)}
