"""Read frames of a video clip: list their times without decoding, then decode single frames to upright RGB pixels.

bytes --Clip--> times_ms of all frames, size, rate, note --frame(at_ms)--> (h, w, 3) uint8 --picture--> bytes of a BMP

A frame is named by `at_ms`: its time after the clip's first frame, rounded up to a whole millisecond. The demuxer is
chosen by the first bytes, never probed, because others (playlists) open further files. FFmpeg decodes on one thread and
swscale converts to RGB, both as PyAV does by default; pixels that are not square stay as they are. Damage of which the
decoder recovers is not reported.
"""

# pyright: reportUnknownMemberType=false, reportPrivateImportUsage=false

from __future__ import annotations

import bisect
import io
import time
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import BadRequest, ImageTooLarge, ImageUnreadable
from model_store.images.header import media_type
from model_store.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

with lazy_imports():
    import av
    import cv2

DEMUXERS = {"video/mp4": "mov", "video/quicktime": "mov", "video/x-msvideo": "avi", "video/x-matroska": "matroska"}
MAX_PIXELS = 100_000_000
_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
"""Limits FFmpeg's decoders: a frame of a few hundred kilobytes can have 268 megapixels, which no header states."""
MAX_MS = 99_999_999
"""Last time that a frame can have, 27 hours: 8 digits, so that paths of frames sort by time."""
MAX_PACKETS = 1_000_000
"""Coded frames that are listed: 9 hours at 30 frames per second."""
MAX_LIST_S = 120.0
MAX_FRAME_S = 60.0
"""Time to decode one frame, from the key frame before it."""
CUT_MS = 1_000
"""A clip that ends earlier than its header states, by more than this, two frames and a tenth, was cut short."""


def require_video() -> None:
    """Raise BadRequest if PyAV is not installed."""
    try:
        av.open  # noqa: B018
    except ImportError as error:
        raise BadRequest(f"video needs PyAV: pip install 'resight[video]' ({error})") from error


class Clip:
    """The video stream of a clip in memory. `times_ms` are those of all frames that the file contains, sorted.

    `frame_rate`: frames per second, None if unknown; `note`: what is wrong with the file, though frames are listed.
    Not for several threads at once. Raises ImageUnreadable, ImageTooLarge, and BadRequest without PyAV.
    """

    def __init__(self, data: bytes) -> None:
        require_video()
        self.data = data
        self.media_type = media_type(data[:512])
        if self.media_type not in DEMUXERS:
            what = f"this is {self.media_type}" if data else "the file is empty"
            raise ImageUnreadable(f"{what}; supported are mp4, mov, avi and mkv")
        self._open()
        stream = self._stream
        self.width_px, self.height_px = stream.codec_context.width, stream.codec_context.height
        self.frame_rate = float(stream.average_rate) if stream.average_rate else None
        self.note: str | None = None
        self._list()

    def close(self) -> None:
        self._container.close()

    @property
    def created_at(self) -> datetime | None:
        """Return the time in the container's metadata, as written there, without its offset; None without one."""
        for name in ("com.apple.quicktime.creationdate", "creation_time", "date"):
            text = self._container.metadata.get(name) or self._stream.metadata.get(name) or ""
            try:
                return datetime.fromisoformat(text).replace(tzinfo=None)
            except ValueError:
                continue
        return None

    def frame(self, at_ms: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Return the upright pixels of the frame at this time, (h, w, 3) uint8 RGB.

        Times that increase are fastest. Raises ImageUnreadable if there is none or it is damaged, ImageTooLarge.
        """
        self._require_size(max_pixels)
        if at_ms not in self._known_ms:
            raise ImageUnreadable(f"the clip has no frame at {at_ms} ms")
        key = bisect.bisect_right(self._keys_ms, at_ms) - 1
        key_ms = self._keys_ms[key] if key >= 0 else 0
        until_s = time.monotonic() + MAX_FRAME_S
        if key_ms > self._position_ms + 1:
            self._seek(key_ms)
        elif self._position_ms >= at_ms:
            self._seek(key_ms) if key_ms else self._open()
        found = self._decoded(at_ms, until_s)
        if found is None and self._has_seeked:  # the index of the file is wrong
            self._open()
            found = self._decoded(at_ms, until_s)
        if found is None or found.is_corrupt:
            most = f"more than {MAX_PIXELS / 1e6:.0f} megapixels"
            raise ImageUnreadable(f"the frame at {at_ms} ms cannot be decoded: it is damaged, or has {most}")
        pixels: Any = found.to_ndarray(format="rgb24")
        matrix: Any = found.side_data.get("DISPLAYMATRIX")
        return pixels if matrix is None else _upright(pixels, bytes(matrix))

    def sampled(self, frames_per_second: float, min_change: float = 0.0) -> list[int]:
        """Return the times of the first frame at or after each multiple of 1 / frames_per_second.

        With `min_change`, only those that differ from the last one by it: mean absolute difference of brightness, as a
        fraction of white, in 64 x 64 cells. Frames that cannot be decoded are included: a run reports them.
        """
        multiple = np.floor(np.array(self.times_ms) * frames_per_second / 1000)
        times = [self.times_ms[i] for i in np.flatnonzero(np.diff(multiple, prepend=-1))]
        return times if min_change <= 0 else list(self._changed(times, min_change))

    def _changed(self, times_ms: list[int], min_change: float) -> Iterator[int]:
        last: NDArray[np.floating] | None = None
        for at_ms in times_ms:
            try:
                pixels = self.frame(at_ms)
            except (ImageUnreadable, ImageTooLarge):
                yield at_ms
                continue
            grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
            cells = np.asarray(grey, np.float32) / 255
            if last is None or float(np.abs(cells - last).mean()) >= min_change:
                last = cells
                yield at_ms

    def _require_size(self, max_pixels: int) -> None:
        if self.width_px * self.height_px > max_pixels:
            raise ImageTooLarge(
                f"{self.width_px}x{self.height_px} is over the limit of {max_pixels / 1e6:.0f} megapixels of a frame"
            )

    def _open(self) -> None:
        """Open the file at its first frame."""
        try:
            self._container: InputContainer = av.open(
                io.BytesIO(self.data),
                "r",
                format=DEMUXERS[self.media_type],
                options=dict(_OPTIONS),
                metadata_errors="replace",
            )
        except (av.FFmpegError, ValueError) as error:
            raise ImageUnreadable(f"damaged {self.media_type}: {_words(error)}; perhaps it is cut short") from error
        streams = self._container.streams.video
        if not streams:
            raise ImageUnreadable(f"this {self.media_type} has no video")
        self._stream = streams[0]
        context: Any = self._stream.codec_context  # None if FFmpeg lacks the codec
        if context is None:
            raise ImageUnreadable(f"this {self.media_type} has a codec that FFmpeg cannot decode")
        context.thread_count, context.options = 1, dict(_OPTIONS)
        self._frames: Iterator[VideoFrame] = self._decode()
        self._position_ms, self._has_seeked = -1, False

    def _list(self) -> None:
        """List the times of all frames and key frames, from the packets; nothing is decoded."""
        times: list[tuple[int, bool]] = []
        in_order = True
        until_s = time.monotonic() + MAX_LIST_S
        try:
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt:
                    self.note = "cut short, or damaged"
                elif packet.pts is not None and packet.size and not packet.is_discard:
                    times.append((packet.pts, packet.is_keyframe))
                    in_order &= packet.pts == packet.dts
                if len(times) > MAX_PACKETS or time.monotonic() > until_s:
                    self.note = f"only its first {len(times)} frames are read: it has more, or takes too long"
                    break
        except av.FFmpegError as error:
            self.note = f"damaged after {len(times)} frames: {_words(error)}"
        self._first_pts = min((pts for pts, _ in times), default=0)
        keyed = [(self._ms(pts), is_key) for pts, is_key in times]
        if any(at_ms > MAX_MS for at_ms, _ in keyed):
            self.note = f"frames after {MAX_MS // 3_600_000} hours are left out"
        # AVI stores no times, and those that FFmpeg computes of reordered frames are wrong after a seek
        seeks = in_order or self.media_type != "video/x-msvideo"
        self._keys_ms = sorted(at_ms for at_ms, is_key in keyed if seeks and is_key and at_ms <= MAX_MS)
        self._known_ms = {at_ms for at_ms, _ in keyed if at_ms <= MAX_MS}
        self.times_ms = sorted(self._known_ms)
        if not times:
            raise ImageUnreadable(f"damaged {self.media_type}: {self.note or 'it has no frames with a time'}")
        stated_ms = (self._container.duration or 0) / 1000  # of microseconds
        if DEMUXERS[self.media_type] != "mov":  # the others count from 0, also if the first frame is later
            stated_ms -= float(self._first_pts * (self._stream.time_base or 1)) * 1000
        slack_ms = CUT_MS + 2000 / (self.frame_rate or 1)
        if not self.note and stated_ms > (self.times_ms[-1] + slack_ms) * 1.1:
            self.note = f"cut short: {self.times_ms[-1] / 1000:.1f} s of {stated_ms / 1000:.1f} s are readable"
        self._open()

    def _ms(self, pts: int) -> int:
        after_s = Fraction(pts - self._first_pts) * (self._stream.time_base or 1)
        return -int(-after_s * 1000 // 1)

    def _seek(self, key_ms: int) -> None:
        try:
            pts = self._first_pts + int(Fraction(key_ms, 1000) / (self._stream.time_base or 1))
            self._container.seek(pts, stream=self._stream, backward=True)
        except av.FFmpegError:
            self._open()
            return
        self._frames = self._decode()
        self._position_ms, self._has_seeked = -1, True

    def _decoded(self, at_ms: int, until_s: float) -> VideoFrame | None:
        """Return the frame at this time from the current position on, None if there is none."""
        for frame in self._frames:
            if time.monotonic() > until_s:
                raise ImageUnreadable(f"the frame at {at_ms} ms takes over {MAX_FRAME_S:.0f} s to decode")
            self._position_ms = self._ms(frame.pts) if frame.pts is not None else self._position_ms
            if self._position_ms >= at_ms:
                return frame if self._position_ms == at_ms else None
        return None

    def _decode(self) -> Iterator[VideoFrame]:
        """Yield frames; a packet that the decoder rejects has none."""
        packets = self._container.demux(self._stream)
        is_open = True
        while is_open:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # the end of a file that was cut
                packet = None
            is_open = packet is not None
            try:
                frames = self._stream.decode(packet)
            except av.FFmpegError:
                continue
            yield from frames


def _upright(pixels: NDArray[np.uint8], matrix: bytes) -> NDArray[np.uint8]:
    """Return the pixels as the display matrix of the container shows them, by the nearest of the 8 orientations.

    Its first numbers are a, b, 0, c, d: (x, y) is shown at (a x + c y, b x + d y). A matrix of zeros changes nothing.
    """
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def picture(pixels: NDArray[np.uint8]) -> bytes:
    """Return the pixels as the file of a BMP, which loses nothing."""
    return cv2.imencode(".bmp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
