"""Render the pixels of the sample archive.

Shot  --render-->  upright frame (HEIGHT, WIDTH, 3) uint8 RGB

background of the camera (coloured noise in several grain sizes)  +  a photograph with soft edges,
moving slightly within a burst  ->  slightly brighter or darker  ->  at night: grey, dark
Backgrounds, scaled photographs and the night light are cached.
"""

from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.archive_plan import Shot

RgbImage = NDArray[np.uint8]  # (h, w, 3)
Weights = NDArray[np.float32]  # (h, w), 0..1

WIDTH, HEIGHT = 1280, 960
PHOTOS = Path(__file__).parent / "photos"
PHOTO_HEIGHTS = (0.62, 0.72, 0.84)  # of HEIGHT; less for wide photographs
EDGE_PX = 28  # width of the soft edge of a photograph
SHAKE_PX = 6  # movement of the camera between frames
GRAINS_PX = (  # (height, width, strength) of each noise layer
    (320, 420, 1.0),
    (90, 110, 0.8),
    (34, 12, 0.7),  # upright: grass
    (9, 12, 0.5),  # leaves
    (3, 3, 0.35),
)
PALETTES = (  # (shade, light) RGB, one per camera
    ((34, 48, 22), (150, 164, 92)),
    ((40, 34, 24), (128, 132, 84)),
    ((74, 52, 34), (176, 142, 102)),
    ((104, 108, 102), (206, 206, 192)),
)


def render(shot: Shot, seed: int) -> RgbImage:
    """Return the upright frame of a shot, (HEIGHT, WIDTH, 3)."""
    frame_rng = np.random.default_rng((seed, shot.camera, shot.burst, shot.frame))
    left, top = frame_rng.integers(0, 2 * SHAKE_PX + 1, size=2)
    frame = background(shot.camera, seed)[top : top + HEIGHT, left : left + WIDTH].copy()
    if shot.subject is not None:
        _place(shot.subject, np.random.default_rng((seed, shot.camera, shot.burst)), shot, frame)
    bright = cv2.convertScaleAbs(frame, alpha=float(frame_rng.uniform(0.88, 1.12)))
    frame = np.asarray(bright, dtype=np.uint8)
    return _at_night(frame, frame_rng) if shot.light == "night" else frame


def subject_box(shot: Shot, seed: int) -> tuple[int, int, int, int] | None:
    """Return x1, y1, x2, y2 of the photograph in the upright frame, in px; None for a blank frame."""
    if shot.subject is None:
        return None
    photo, _, x, y = _placed(shot.subject, np.random.default_rng((seed, shot.camera, shot.burst)), shot)
    return x, y, x + photo.shape[1], y + photo.shape[0]


def _place(subject: str, burst_rng: np.random.Generator, shot: Shot, frame: RgbImage) -> None:
    """Blend the photograph of a burst into `frame`."""
    photo, weights, x, y = _placed(subject, burst_rng, shot)
    region = frame[y : y + photo.shape[0], x : x + photo.shape[1]]
    region[:] = cv2.blendLinear(photo, region.copy(), weights, 1 - weights)


def _placed(subject: str, burst_rng: np.random.Generator, shot: Shot) -> tuple[RgbImage, Weights, int, int]:
    """Return a photograph with its weights, and its left and top, some pixels further with each frame of a burst."""
    size, flip = int(burst_rng.integers(len(PHOTO_HEIGHTS))), bool(burst_rng.integers(2))
    photo, weights = _photo(subject, PHOTO_HEIGHTS[size], flip)
    room_xy = np.array((WIDTH, HEIGHT)) - photo.shape[1::-1]
    step_xy = burst_rng.integers((-24, -6), (25, 7))
    start_xy = (burst_rng.random(2) * room_xy).astype(int)
    x, y = np.clip(start_xy + shot.frame * step_xy, 0, room_xy)
    return photo, weights, int(x), int(y)


@lru_cache(maxsize=64)
def _photo(subject: str, of_height: float, flip: bool) -> tuple[RgbImage, Weights]:
    """Return a photograph at its size in the frame, and its weights against the background."""
    bgr = cv2.imread(str(PHOTOS / f"{subject}.jpg"), cv2.IMREAD_COLOR)
    if bgr is None:
        raise FileNotFoundError(PHOTOS / f"{subject}.jpg")
    height, width = bgr.shape[:2]
    scale = min(of_height * HEIGHT / height, (WIDTH - 2 * SHAKE_PX) / width)
    size = (round(width * scale), round(height * scale))
    photo = cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), size, interpolation=cv2.INTER_CUBIC)
    photo = photo[:, ::-1] if flip else photo
    return np.ascontiguousarray(photo, dtype=np.uint8), _soft_edges(size)


def _soft_edges(size: tuple[int, int]) -> Weights:
    """Return weights (h, w): 0 at the border, 1 from EDGE_PX inwards; `size` is (w, h)."""
    across, down = (np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) / EDGE_PX, 0, 1) for n in size)
    return np.outer(down, across).astype(np.float32)


@cache
def background(camera: int, seed: int) -> RgbImage:
    """Return the empty scene of a camera, SHAKE_PX larger than a frame on every side."""
    rng = np.random.default_rng((seed, camera, 0xBAC))
    shape = (HEIGHT + 2 * SHAKE_PX, WIDTH + 2 * SHAKE_PX)
    relief = sum(strength * _noise(rng, shape, h, w) for h, w, strength in GRAINS_PX)
    level = 1 / (1 + np.exp(-1.2 * relief))[..., None]
    tint = 1 + 0.05 * _noise(rng, shape, 200, 200)[..., None] * np.array((1.0, 0.2, -0.8))
    shade, light = (np.array(colour, dtype=np.float32) for colour in PALETTES[camera])
    return np.clip((shade + (light - shade) * level) * tint, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, shape: tuple[int, int], grain_h: int, grain_w: int) -> NDArray[np.float32]:
    """Return smooth noise of about unit strength, (h, w), with grains of grain_h x grain_w pixels."""
    height, width = shape
    coarse = rng.standard_normal((height // grain_h + 2, width // grain_w + 2), dtype=np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, dtype=np.float32)


def _at_night(frame: RgbImage, rng: np.random.Generator) -> RgbImage:
    """Return the frame under an infrared flash: grey, dark towards the corners, noisy."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    lit = cv2.multiply(grey, _flash(), dtype=cv2.CV_8U)
    row, column = rng.integers(0, 64, size=2)
    noise = _sensor_noise()[row : row + HEIGHT, column : column + WIDTH]
    noisy = cv2.add(lit, noise, dtype=cv2.CV_8U)
    return np.asarray(cv2.cvtColor(noisy, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


@cache
def _flash() -> Weights:
    """Return the fraction of the flash that reaches each pixel, (HEIGHT, WIDTH)."""
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    return (0.18 + 0.52 * np.exp(-1.1 * (x * x + y * y))).astype(np.float32)


@cache
def _sensor_noise() -> NDArray[np.int16]:
    """Return grey levels to add at night; larger than a frame, so that each frame uses another part."""
    rng = np.random.default_rng(0)
    return np.rint(rng.normal(0, 3, (HEIGHT + 64, WIDTH + 64))).astype(np.int16)
