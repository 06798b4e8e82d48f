"""Keep the books of a chaos run: one JSON line for each thing that was sent, acknowledged or broken.

books.write("upload", sha=…, status=201) appends a line; books.entries() -> all lines, in order

The file is on another disk than the tables. Times are seconds since the books were opened, by the monotonic clock.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CORNERS = ("x1_px", "y1_px", "x2_px", "y2_px")
COMMENT = b"\xff\xfe"


class Books:
    """Append-only books. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self._path, self._file = file, file.open("a", buffering=1)
        self._lock, self._began_s = threading.Lock(), time.monotonic()

    def now(self) -> float:
        return round(time.monotonic() - self._began_s, 3)

    def write(self, kind: str, **fields: Any) -> None:
        with self._lock:
            self._file.write(json.dumps({"kind": kind, "at": self.now(), **fields}) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]


def picture_of(photo: bytes, number: int) -> bytes:
    """Return the JPEG with a comment: other bytes, the same pixels and so the same detections."""
    text = f"picture {number}".encode()
    return photo[:2] + COMMENT + (len(text) + 2).to_bytes(2, "big") + text + photo[2:]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of_answer(detections: Sequence[Mapping[str, Any]]) -> str:
    """Return a digest of the detections of an HTTP answer with `min_score=0`."""
    return _digest((d["label"], (d["score"], *d["box_xyxy_px"])) for d in detections)


def digest_of_row(detections: Sequence[Mapping[str, Any]] | None) -> str:
    """Return the digest of the detections of a row of `results`; equal boxes have equal digests in both forms."""
    return _digest((d["label"], (d["score"], *(d[name] for name in CORNERS))) for d in detections or ())


def _digest(detections: Iterable[tuple[str, Sequence[float]]]) -> str:
    text = repr([(label, np.array(numbers, np.float32).tolist()) for label, numbers in detections])
    return sha256(text.encode())[:16]
