"""Clips: a frame by itself is bit for bit the frame of a sequential decoding; damaged and lying files are bounded."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

import model_store.images.video
from model_store.errors import BadRequest, ImageError, ImageTooLarge, ImageUnreadable
from model_store.images.decode import decode
from model_store.images.header import media_type
from model_store.images.video import Clip, picture
from tests.support.clips import CREATED, clip, noise, passing, sequential, stills

FRAMES = 40
VARIABLE = [0, 1, 2, 9, 10, 30, 31, *range(60, 60 + 3 * (FRAMES - 7), 3)]
LATE = list(range(50, 50 + FRAMES))
"""Times of a part of a longer recording, which begins after 5 s."""
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "h264": ("a.mp4", "video/mp4", {}),
    "hevc": ("a.mp4", "video/mp4", {"codec": "libx265"}),
    "hevc_reordered": ("a.mkv", "video/x-matroska", {"codec": "libx265", "b_frames": 3}),
    "mpeg4": ("a.avi", "video/x-msvideo", {"codec": "mpeg4"}),
    "mpeg4_reordered": ("a.avi", "video/x-msvideo", {"codec": "mpeg4", "b_frames": 2, "times": LATE}),
    "motion_jpeg": ("a.avi", "video/x-msvideo", {"codec": "mjpeg"}),
    "quicktime": ("a.mov", "video/quicktime", {}),
    "vp9": ("a.webm", "video/x-matroska", {"codec": "libvpx-vp9", "times": LATE}),
    "variable": ("a.mp4", "video/mp4", {"times": VARIABLE}),
    "fragments": ("a.mp4", "video/mp4", {"options": FRAGMENTS}),
    "rotated": ("a.mp4", "video/mp4", {"rotation": 90}),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_frame_is_that_of_a_sequential_decoding(tmp_path: Path, kind: str) -> None:
    name, expected_type, more = KINDS[kind]
    data = clip(tmp_path / name, noise(FRAMES), **more)
    expected = sequential(data)
    opened = Clip(data)
    assert (opened.media_type, opened.note) == (expected_type, None)
    assert len(opened.times_ms) == len(expected) == FRAMES
    in_order = range(FRAMES)
    for n in [*np.random.default_rng(0).permutation(FRAMES).tolist(), *in_order]:
        assert np.array_equal(opened.frame(opened.times_ms[n]), expected[n]), f"{kind}: frame {n}"
    opened.close()


def test_a_clip_of_reordered_frames_without_times_is_decoded_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVI has no times: after a seek, those that FFmpeg computes for MPEG-4 with B-frames are others."""
    seeks = list[int]()
    seek = Clip._seek
    monkeypatch.setattr(Clip, "_seek", lambda clip, key_ms: (seeks.append(key_ms), seek(clip, key_ms)))
    for b_frames, has_seeked in ((2, False), (0, True)):
        seeks.clear()
        Clip(clip(tmp_path / "a.avi", noise(20), codec="mpeg4", b_frames=b_frames)).frame(1300)
        assert bool(seeks) == has_seeked


def test_times_are_those_of_the_container(tmp_path: Path) -> None:
    opened = Clip(clip(tmp_path / "a.mp4", noise(FRAMES), times=VARIABLE))
    assert opened.times_ms == [100 * moment for moment in VARIABLE]
    assert opened.created_at is not None
    assert opened.created_at.isoformat() == CREATED
    assert Clip(clip(tmp_path / "b.mp4", noise(4), created=None)).created_at is None
    third = Clip(clip(tmp_path / "c.mkv", noise(4), rate=3))
    assert third.times_ms == [0, 333, 667, 1000], "rounded by Matroska, to milliseconds"


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied_as_another_reader_does(tmp_path: Path, rotation: int) -> None:
    """OpenCV also applies the display matrix; its conversion to RGB may differ by a few levels."""
    data = clip(tmp_path / "a.mp4", passing("cat", 3), rotation=rotation)
    other = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    read, bgr = other.read()
    assert read
    found = Clip(data).frame(0)
    assert found.shape == ((640, 360, 3) if rotation in (90, 270) else (360, 640, 3))
    assert found.shape == bgr.shape
    assert np.abs(found.astype(int) - bgr[..., ::-1]).mean() < 3


@pytest.mark.parametrize("degrees", [0, 1, -1, 44, -44, 89, 91, -89, -91, 134, 179, 181])
def test_a_turn_between_two_quarters_is_the_nearest(tmp_path: Path, degrees: int) -> None:
    quarters = round(degrees / 90)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    found, stored = shown_by(tmp_path, [cos, -sin, sin, cos])
    assert np.array_equal(found, np.rot90(stored, quarters))


@pytest.mark.parametrize(
    "matrix", [*([a, 0, 0, d] for a in (1, -1) for d in (1, -1)), *([0, b, c, 0] for b in (1, -1) for c in (1, -1))]
)
def test_a_mirrored_clip_is_shown_as_its_matrix_places_each_pixel(tmp_path: Path, matrix: list[float]) -> None:
    found, stored = shown_by(tmp_path, matrix)
    a, b, c, d = matrix
    rows, columns = np.indices(stored.shape[:2])
    x, y = (a * columns + c * rows).astype(int), (b * columns + d * rows).astype(int)
    expected = np.zeros((np.ptp(y) + 1, np.ptp(x) + 1, 3), np.uint8)
    expected[y - y.min(), x - x.min()] = stored
    assert np.array_equal(found, expected)


def test_a_matrix_of_zeros_turns_nothing(tmp_path: Path) -> None:
    found, stored = shown_by(tmp_path, [0, 0, 0, 0])
    assert np.array_equal(found, stored)


def shown_by(folder: Path, matrix: list[float]) -> tuple[Any, Any]:
    """Return the first frame of a clip with this matrix a, b, c, d in its track header, and as it is stored."""
    data = bytearray(clip(folder / "a.mp4", passing("cat", 1)))
    stored = sequential(bytes(data))[0]
    a, b, c, d = (round(value * 65536) for value in matrix)
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return Clip(bytes(data)).frame(0), stored


def test_sampling_takes_the_first_frame_at_or_after_each_moment(tmp_path: Path) -> None:
    opened = Clip(clip(tmp_path / "a.mp4", noise(FRAMES), times=VARIABLE))
    expected, moments = [], np.arange(0, opened.times_ms[-1] + 1, 1000)
    for moment in moments:
        at_ms = next(t for t in opened.times_ms if t >= moment)
        expected += [at_ms] if at_ms not in expected else []
    assert opened.sampled(1.0) == expected
    assert set(opened.sampled(1.0)) <= set(opened.sampled(2.0)), "a multiple of the rate keeps the frames"
    assert opened.sampled(1000.0) == opened.times_ms


def test_sampling_by_change_skips_frames_like_the_last_one(tmp_path: Path) -> None:
    still, moving = passing("cat", 1) * 20, passing("cat", 20)
    opened = Clip(clip(tmp_path / "a.mp4", still + moving))
    assert opened.sampled(10.0, 0.02)[0] == 0
    after = opened.sampled(10.0, 0.02)[1:]
    assert after
    assert min(after) > 1900, "nothing moves in the first two seconds"
    assert len(after) < 20


@pytest.mark.parametrize(
    ("name", "more"), [("a.mkv", {}), ("a.avi", {"codec": "mpeg4"}), ("a.mp4", {"options": FRAGMENTS})]
)
def test_a_clip_that_is_cut_has_the_frames_that_can_be_read(tmp_path: Path, name: str, more: dict[str, Any]) -> None:
    data = clip(tmp_path / name, noise(FRAMES), **more)
    expected = sequential(data)
    cut = Clip(data[: len(data) // 2])
    assert "cut short" in str(cut.note)
    assert 5 < len(cut.times_ms) < FRAMES * 2 // 3
    for n, at_ms in enumerate(cut.times_ms):
        assert np.array_equal(cut.frame(at_ms), expected[n])


def test_files_without_frames_are_errors_with_the_cause(tmp_path: Path) -> None:
    data = clip(tmp_path / "a.mp4", noise(5))
    sound = io.BytesIO()
    with av.open(sound, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux([*stream.encode(frame), *stream.encode()])
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    for content, words in [
        (b"", "the file is empty"),
        (data[: len(data) // 2], "cut short"),
        (sound.getvalue(), "has no video"),
        (playlist, "this is application/octet-stream"),
        (data[:40], "damaged video/mp4"),
        (data.replace(b"avc1", b"BRAW"), "a codec that FFmpeg cannot decode"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(200), "damaged video/x-msvideo"),
    ]:
        with pytest.raises(ImageUnreadable, match=words):
            Clip(content)


def test_still_pictures_in_the_container_of_mp4_are_no_clips() -> None:
    assert media_type(b"\0\0\0\x18ftypheic" + bytes(20)) == "application/octet-stream"
    assert media_type(b"\0\0\0\x18ftypisom" + bytes(20)) == "video/mp4"


def test_a_file_that_claims_to_be_endless_costs_what_it_contains(tmp_path: Path) -> None:
    data = bytearray(clip(tmp_path / "a.mp4", noise(10)))
    for box in (b"mvhd", b"mdhd"):
        at = data.index(box) + 4 + 16
        data[at : at + 4] = b"\xff\xff\xff\xfe"
    started_s = time.monotonic()
    opened = Clip(bytes(data))
    assert opened.sampled(1000.0) == [100 * n for n in range(10)]
    assert time.monotonic() - started_s < 60
    late = Clip(clip(tmp_path / "b.mkv", noise(3), rate=1, times=[0, 1, 200_000]))
    assert late.times_ms == [0, 1000]
    assert "27 hours" in str(late.note)


def test_frames_packets_and_pixels_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip(tmp_path / "a.mkv", noise(20))
    with pytest.raises(ImageTooLarge, match="64x48"):
        Clip(data).frame(0, max_pixels=1000)
    with pytest.raises(ImageUnreadable, match="no frame at 50 ms"):
        Clip(data).frame(50)
    with monkeypatch.context() as patch:
        patch.setattr(model_store.images.video, "MAX_PACKETS", 9)
        assert len(Clip(data).times_ms) == 10
        assert "first 10 frames" in str(Clip(data).note)
    with monkeypatch.context() as patch:
        patch.setattr(model_store.images.video, "MAX_FRAME_S", -1.0)
        with pytest.raises(ImageUnreadable, match="takes over"):
            Clip(data).frame(0)


def test_a_frame_that_claims_many_pixels_costs_no_memory(tmp_path: Path) -> None:
    """The header of the second clip states them: opening it decodes a frame."""
    small, huge = (
        cv2.imencode(".png", np.zeros((h, w, 3), np.uint8))[1].tobytes() for h, w in ((4, 6), (12000, 12000))
    )
    code = """
import re, sys
from pathlib import Path
from model_store.images.video import Clip
clip = Clip(Path(sys.argv[1]).read_bytes())
for at_ms in clip.times_ms:
    try:
        print(clip.frame(at_ms).shape)
    except Exception as error:
        print(error)
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10)
"""
    for name, pictures, size in (("a", [small, huge, small], (4, 6)), ("b", [huge], (12000, 12000))):
        (tmp_path / name).write_bytes(stills(pictures, size))
        done = subprocess.run([sys.executable, "-c", code, tmp_path / name], capture_output=True, text=True, check=True)
        *shown, peak_mib = done.stdout.splitlines()
        assert [words for words in shown if "12000" in words or "more than 100 megapixels" in words], done.stdout
        assert shown.count("(4, 6, 3)") == pictures.count(small)
        assert int(peak_mib) < 250, "of 432 MB of pixels"


def test_a_damaged_frame_is_an_error_and_the_others_are_read(tmp_path: Path) -> None:
    data = bytearray(clip(tmp_path / "a.avi", noise(20), codec="mjpeg"))
    with av.open(io.BytesIO(bytes(data))) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    start, size = packets[7]
    assert start is not None
    data[start + 8 : start + size] = bytes(size - 8)
    opened = Clip(bytes(data))
    good = 0
    for at_ms in opened.times_ms:
        try:
            opened.frame(at_ms)
            good += 1
        except ImageError:
            assert at_ms == opened.times_ms[7]
    assert good == 19


def test_without_pyav_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip(tmp_path / "a.mp4", noise(2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BadRequest, match=r"pip install 'resight\[video\]'"):
        Clip(data)


def test_the_picture_of_a_frame_loses_nothing() -> None:
    for shape in ((48, 64), (7, 5)):
        (pixels,) = noise(1, size=shape)
        assert np.array_equal(decode(picture(pixels)).pixels, pixels)
