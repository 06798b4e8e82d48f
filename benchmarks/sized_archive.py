"""Make an archive of one picture size, like that of one camera model, for measurements of throughput.

build(OUT, 5000, (4000, 3000))  ->  OUT/camera_00/00000.jpg …   JPEGs that differ in their bytes

DISTINCT frames of the sample archive are scaled to the size and encoded. Each file is one of them with its number in a
comment (a COM segment). All digests therefore differ, and all files cost the same to decode.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from examples.archive_plan import plan
from examples.scenes import render

DISTINCT = 48
PER_CAMERA = 500
QUALITY = 88
GRAIN = 6.0
"""Standard deviation of noise in levels, equal in all colours: an enlarged frame is smoother than a sensor image."""


def build(out: Path, images: int, size_px: tuple[int, int]) -> None:
    """Write `images` files of (width, height) px to `out` unless it already has that number."""
    if out.is_dir() and sum(1 for _ in out.rglob("*.jpg")) == images:
        return
    frames = [frame(size_px, which) for which in range(DISTINCT)]
    for number in range(images):
        file = out / f"camera_{number // PER_CAMERA:02d}" / f"{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_numbered(frames[number % len(frames)], number))


def frame(size_px: tuple[int, int], which: int = 0) -> bytes:
    """Return one of the distinct JPEGs, without a number."""
    shots = [shot for shot in plan(DISTINCT * 4, seed=0) if shot.kind == "jpeg"]
    return _encoded(render(shots[which], 0), size_px)


def _encoded(frame: cv2.typing.MatLike, size_px: tuple[int, int]) -> bytes:
    large = cv2.resize(frame, size_px, interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).normal(0, GRAIN, large.shape[:2])[..., None]
    noisy = np.clip(large + grain, 0, 255).astype(np.uint8)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(noisy, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return data.tobytes()


def _numbered(jpeg: bytes, number: int) -> bytes:
    words = f"frame {number}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words + jpeg[2:]
