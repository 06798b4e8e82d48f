"""Plan the files of the sample archive, before any pixel is rendered.

(images, seed)  --plan-->  one Shot for each file, camera by camera, in the order they were taken

The timeline of a camera is a sequence of bursts (1 to 5 frames, 1 s apart), minutes to hours apart.
Its odd files (damaged, copied, other formats) are bursts of one frame. Times are those of the
camera's local clock. Every random number depends only on (seed, camera, ...).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

Kind = Literal[
    "jpeg", "grey_jpeg", "cmyk_jpeg", "cut_data", "cut_header", "html", "empty",
    "png", "webp", "tiff", "grey16_png", "alpha_png", "copy",
]  # fmt: skip
Light = Literal["day", "night"]


@dataclass(frozen=True)
class Camera:
    """A camera: its EXIF values and the odd files in its folder."""

    name: str
    make: str
    model: str
    odd: tuple[Kind, Kind, Kind]
    serial: str | None = None
    utc_offset: str | None = None
    lat_lon: tuple[float, float] | None = None  # degrees, north and east positive


@dataclass(frozen=True)
class Shot:
    """A file of the archive; `subject` is None for a blank frame."""

    camera: int  # index into CAMERAS
    path: str  # relative to the archive, forward slashes
    taken: datetime
    subject: str | None
    burst: int  # number of the burst within its camera
    frame: int  # number of the frame within its burst, also the seconds since the first one
    kind: Kind = "jpeg"
    light: Light = "day"
    orientation: int = 1
    copy_of: str | None = None  # path of the file with the same bytes


@dataclass(frozen=True)
class _Burst:
    number: int
    length: int
    kind: Kind
    light: Light
    blank: bool


CAMERAS = (
    Camera("deer-north", "RECONYX", "HYPERFIRE 2", ("cmyk_jpeg", "png", "html"),
           utc_offset="+02:00", lat_lon=(47.6612, 9.1747)),
    Camera("deer-south", "BUSHNELL", "CORE DS-4K", ("copy", "cut_header", "grey16_png"),
           serial="B30441207"),
    Camera("bee-hotel", "BROWNING", "BTC-8E", ("copy", "empty", "webp"), utc_offset="+02:00"),
    Camera("moth-sheet", "SPYPOINT", "FORCE-48", ("cut_data", "tiff", "alpha_png"),
           serial="SP-0077-19", lat_lon=(-12.7704, -71.3921)),
)  # fmt: skip
SUBJECTS = ("cat", "person", "moose", "crocodile", "panda")
EXTENSIONS: dict[Kind, str] = {
    "html": "jpg", "empty": "jpg", "png": "png", "grey16_png": "png", "alpha_png": "png",
    "webp": "webp", "tiff": "tif",
}  # fmt: skip
ODD_FILES = sum(len(camera.odd) for camera in CAMERAS)
MIN_IMAGES = 2 * ODD_FILES  # leaves three ordinary frames per camera, enough for every feature
SCENE_CYCLE = 7  # one burst in seven is at night and one is blank: about 15 % of the frames each
ROTATED_EVERY = 24  # frames of a camera
ROTATIONS = (6, 8, 3)  # EXIF orientations
FIRST_DAY = datetime(2026, 5, 14, 7, 0)
RESET_CLOCK = datetime(2000, 1, 1)


def plan(images: int, seed: int) -> tuple[Shot, ...]:
    """Return all files of an archive of `images` files; equal arguments give equal plans."""
    if images < MIN_IMAGES:
        raise ValueError(f"invalid number of images {images}: a sample archive needs at least {MIN_IMAGES}")
    share, extra = divmod(images - ODD_FILES, len(CAMERAS))
    shots = [
        shot
        for number in range(len(CAMERAS))
        for shot in _with_specials(list(_shots(number, share + (number < extra), seed)))
    ]
    return tuple(_with_copies(shots))


def _bursts(camera: int, frames: int, rng: np.random.Generator) -> list[_Burst]:
    """Return bursts with `frames` ordinary frames in total, and the camera's odd files among them."""
    longest = max(1, min(5, frames // 3))  # several bursts per camera even in a small archive
    bursts: list[_Burst] = []
    while frames:
        number = len(bursts)
        length = min(frames, int(rng.integers(1, longest + 1)))
        scene = (number + camera) % SCENE_CYCLE
        night, blank = scene == 1, scene == 3
        grey = night and camera == 1 and number // SCENE_CYCLE % 2 == 0
        kind: Kind = "grey_jpeg" if grey else "jpeg"
        bursts.append(_Burst(number, length, kind, "night" if night else "day", blank))
        frames -= length
    for number, kind in enumerate(CAMERAS[camera].odd, start=len(bursts)):
        at = int(rng.integers(0, len(bursts) + 1))
        bursts.insert(at, _Burst(number, 1, kind, "day", blank=False))
    return bursts


def _shots(camera: int, frames: int, seed: int) -> Iterator[Shot]:
    rng = np.random.default_rng((seed, camera))
    clock, file_number = FIRST_DAY, 0
    for burst in _bursts(camera, frames, rng):
        clock = _next_burst(clock, burst.light, rng)
        subject = SUBJECTS[(burst.number + camera + seed) % len(SUBJECTS)]
        for frame in range(burst.length):
            taken = clock + timedelta(seconds=frame)
            file_number += 1
            name = f"IMG_{file_number:04d}.{EXTENSIONS.get(burst.kind, 'JPG')}"
            yield Shot(
                camera=camera,
                path=f"{CAMERAS[camera].name}/{taken:%Y-%m-%d}/{name}",
                taken=taken,
                subject=None if burst.blank else subject,
                burst=burst.number,
                frame=frame,
                kind=burst.kind,
                light=burst.light,
            )


def _next_burst(clock: datetime, light: Light, rng: np.random.Generator) -> datetime:
    """Return the start of the next burst: 4 minutes to 4 hours later, then at the right time of day."""
    minutes = int(rng.integers(4, 241))
    later = int(rng.integers(0, 91))  # minutes after 22:00 or 6:00
    milliseconds = int(rng.integers(1000))
    seconds = int(rng.integers(60))
    start = (clock + timedelta(minutes=minutes)).replace(second=seconds, microsecond=milliseconds * 1000)
    day = start.replace(hour=0, minute=0)
    if light == "night" and 4 <= start.hour < 22:
        return day + timedelta(hours=22, minutes=later)
    if light == "day" and start.hour < 6:
        return day + timedelta(hours=6, minutes=later)
    if light == "day" and start.hour >= 21:
        return day + timedelta(days=1, hours=6, minutes=later)
    return start


def _with_specials(shots: list[Shot]) -> list[Shot]:
    """Rotate some ordinary frames of a camera; on the moth sheet, reset the clock of one frame."""
    ordinary = [i for i, shot in enumerate(shots) if shot.kind in ("jpeg", "grey_jpeg")]
    for turn, i in enumerate(ordinary[2::ROTATED_EVERY]):
        rotation = ROTATIONS[(shots[i].camera + turn) % len(ROTATIONS)]
        shots[i] = replace(shots[i], orientation=rotation)
    if CAMERAS[shots[0].camera].name == "moth-sheet":
        i = shots.index(_first_plain(shots))
        shots[i] = replace(shots[i], taken=RESET_CLOCK)
    return shots


def _with_copies(shots: list[Shot]) -> Iterator[Shot]:
    """Set the originals of the two copies: one of another camera, one in the same folder."""
    by_camera = {
        camera.name: [shot for shot in shots if shot.camera == number] for number, camera in enumerate(CAMERAS)
    }
    other_camera = _first_plain(by_camera["deer-north"])
    same_camera = _first_plain(by_camera["bee-hotel"])
    for shot in shots:
        if shot.kind != "copy":
            yield shot
        elif CAMERAS[shot.camera].name == "bee-hotel":
            path = same_camera.path.replace(".JPG", "_copy.JPG")
            yield replace(same_camera, path=path, kind="copy", copy_of=same_camera.path)
        else:
            yield replace(other_camera, path=shot.path, kind="copy", copy_of=other_camera.path)


def _first_plain(shots: list[Shot]) -> Shot:
    """Return the first upright daytime JPEG with an animal."""
    return next(
        shot for shot in shots if shot.kind == "jpeg" and shot.light == "day" and shot.subject and shot.orientation == 1
    )
