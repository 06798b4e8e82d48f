"""Video clips for tests, made with the library that reads them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from examples.make_models import PHOTOS
from examples.scenes import background

Frame = NDArray[np.uint8]
CREATED = "2026-05-02T06:30:00"


def noise(frames: int, seed: int = 0, size: tuple[int, int] = (48, 64)) -> list[Frame]:
    """Return frames that no codec can predict from each other, of height and width `size`."""
    return [np.random.default_rng((seed, n)).integers(0, 255, (*size, 3), np.uint8) for n in range(frames)]


def passing(animal: str, frames: int, size: tuple[int, int] = (360, 640)) -> list[Frame]:
    """Return frames in which a photographed animal walks from left to right."""
    height, width = size
    scene = cv2.resize(background(0, 0), (width, height), interpolation=cv2.INTER_AREA)
    photo = cv2.cvtColor(cv2.imread(str(PHOTOS / f"{animal}.jpg")), cv2.COLOR_BGR2RGB)
    side = height * 6 // 10
    photo = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    made = []
    for n in range(frames):
        frame = scene.copy()
        left = (width - side) * n // max(1, frames - 1)
        frame[height - side :, left : left + side] = photo
        made.append(frame)
    return made


def clip(
    path: Path,
    frames: Sequence[Frame],
    codec: str = "libx264",
    rate: int = 10,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    b_frames: int | None = None,
    options: dict[str, str] | None = None,
    created: str | None = CREATED,
) -> bytes:
    """Write a clip and return its bytes; `times` are those of the frames, in 1/rate seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as file:
        if created:
            file.metadata["creation_time"] = created
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = file.add_stream(codec, rate=rate, options={"g": "12", **quiet})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        for n, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (times[n] if times else n), Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path.read_bytes()


def stills(pictures: Sequence[bytes], size: tuple[int, int]) -> bytes:
    """Return a QuickTime clip of PNG files, one each 0.1 s, with a header that states the height and width `size`."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        stream = container.add_stream("png", rate=10)
        (stream.height, stream.width), stream.pix_fmt = size, "rgb24"
        stream.codec_context.open()
        for n, data in enumerate(pictures):
            packet = av.Packet(data)
            packet.pts = packet.dts = n
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 10), stream, True
            container.mux(packet)
    return file.getvalue()


def sequential(data: bytes) -> list[Frame]:
    """Return all frames of a clip, upright, as PyAV decodes them from the first to the last."""
    with av.open(io.BytesIO(data)) as file:
        return [np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in file.decode(video=0)]
