"""Catalogue video clips: one row of `media` for the clip, and one for each sampled frame, which is an image.

(file, bytes, Sampling) --clip_rows--> row of the clip, rows of its frames; nothing but its first frame is decoded
frame_path("c/1.mp4", 12000) -> "c/1.mp4#00012000"; its media_sha256: sha256 of "<media_sha256 of the clip>#00012000"
frame_file(read, key, path) -> the bytes of that frame as a BMP, from a clip that stays open for the next frames

No file of an archive has such a path, because each ends in an extension. A frame has the quick digest of its clip, so
readers check the bytes of the clip as they check those of an image.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from archive.catalogue.exif import time_flags
from archive.catalogue.listing import ArchiveFile
from archive.catalogue.media import Template, file_row
from model_store.errors import BadRequest, ImageError
from model_store.images.video import Clip, picture

FRAME = re.compile(r"(?s)(.+)#(\d{8})")
MAX_FRAMES = 50_000
"""Sampled frames of a clip."""
KEPT_BYTES = 256 << 20
"""Size of the clips that a process keeps open, or of one that is larger."""


class Sampling(NamedTuple):
    """Frames of clips: how many a second, 0 for no clips, and how much each differs from the last (`Clip.sampled`)."""

    frames_per_second: float = 0.0
    min_change: float = 0.0

    def require_valid(self) -> None:
        """Raise BadRequest."""
        if not (0 <= self.frames_per_second <= 1000 and 0 <= self.min_change <= 1):
            raise BadRequest(
                f"invalid sampling {self}: use --frames-per-second from 0 to 1000 and --min-change from 0 to 1"
            )


class ClipRows(NamedTuple):
    clip: dict[str, Any]
    frames: list[dict[str, Any]]


def frame_path(clip: str, at_ms: int) -> str:
    return f"{clip}#{at_ms:08d}"


def frame_sha256(clip_sha256: str, at_ms: int) -> str:
    return hashlib.sha256(frame_path(clip_sha256, at_ms).encode()).hexdigest()


def clip_of(path: str) -> tuple[str, int | None]:
    """Return the path of the clip and the time of a frame; of any other file, its own path and None."""
    match = FRAME.fullmatch(path)
    return (match[1], int(match[2])) if match else (path, None)


def clip_rows(
    root_url: str,
    file: ArchiveFile,
    data: bytes,
    template: Template,
    sampling: Sampling,
    known: Iterable[tuple[str, int]] = (),
) -> ClipRows:
    """Return the rows of a clip. `known`: path and quick digest of its catalogued frames, which stay frames of it.

    Damage raises nothing: `header_error` describes it, and the frames that can be read have rows.
    """
    row: dict[str, Any] = file_row(root_url, file, data, template) | {"frame_count": 0}
    try:
        clip = Clip(data)
    except ImageError as error:
        return ClipRows(row | {"header_error": str(error)}, [])
    note = clip.note
    times_ms = set(clip.sampled(*sampling))
    if len(times_ms) > MAX_FRAMES:
        times_ms, note = set(sorted(times_ms)[:MAX_FRAMES]), f"only {MAX_FRAMES} frames are sampled"
    times_ms |= {int(path[-8:]) for path, digest in known if digest == row["quick_digest"]} & set(clip.times_ms)
    width_px, height_px = clip.width_px, clip.height_px
    try:
        height_px, width_px = clip.frame(clip.times_ms[0]).shape[:2]  # upright
    except ImageError as error:
        note = note or str(error)
    clip.close()
    row |= {
        "media_type": clip.media_type,
        "width_px": width_px,
        "height_px": height_px,
        "header_error": note,
        "duration_ms": clip.times_ms[-1],
        "frame_rate": clip.frame_rate,
        "frame_count": len(clip.times_ms),
        **_taken(clip.created_at),
    }
    picture_of = {
        "size_bytes": 54 + -(-width_px * 3 // 4) * 4 * height_px,  # of the BMP that readers get
        "media_type": "image/bmp",
        "exif_orientation": 1,
        "clip_sha256": row["media_sha256"],
        **dict.fromkeys(("header_error", "duration_ms", "frame_count")),
    }
    index = {at_ms: number for number, at_ms in enumerate(clip.times_ms)}
    frames = [
        row
        | picture_of
        | _taken(clip.created_at, at_ms)
        | {
            "media_sha256": frame_sha256(row["media_sha256"], at_ms),
            "path": frame_path(file.path, at_ms),
            "frame_index": index[at_ms],
            "at_ms": at_ms,
        }
        for at_ms in sorted(times_ms)
    ]
    return ClipRows(row, frames)


def _taken(created_at: datetime | None, at_ms: int = 0) -> dict[str, Any]:
    """Return the time of a frame: that of the clip's metadata, as the camera's clock, and its time in the clip."""
    if created_at is None:
        return {}
    with suppress(OverflowError):
        local = created_at + timedelta(milliseconds=at_ms)
        names = ("captured_at_local", "timestamp_source", "timestamp_flags")
        return dict(zip(names, (local.isoformat(), "video_created", time_flags(local)), strict=True))
    return {}


class _Kept(NamedTuple):
    key: tuple[object, ...]
    clip: Clip


_kept: list[_Kept] = []
_lock = threading.Lock()


def frame_file(read: Callable[[], bytes], key: tuple[object, ...], at_ms: int) -> bytes:
    """Return a frame as the bytes of a BMP. `read` returns the verified bytes of the clip, and `key` identifies them.

    A clip is used by one thread at a time, and stays open, so that frames in order are decoded once.
    Raises ImageError, and the errors of `read`.
    """
    with _lock:
        kept = next((kept for kept in _kept if kept.key == key), None)
        if kept:
            _kept.remove(kept)
    kept = kept or _Kept(key, Clip(read()))
    try:
        return picture(kept.clip.frame(at_ms))
    finally:
        with _lock:
            _kept.append(kept)
            while len(_kept) > 1 and sum(len(other.clip.data) for other in _kept) > KEPT_BYTES:
                _kept.pop(0).clip.close()
