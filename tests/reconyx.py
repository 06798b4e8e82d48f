"""Make JPEGs with maker notes as those of a Reconyx HyperFire, and a program that speaks ExifTool's protocol."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

from PIL import Image

FAKE = f"""#!{sys.executable}
import json, re, signal, sys

def answer(path):
    text = open(path, "rb").read().decode("utf-16-le", "replace") + open(path, "rb").read().decode("latin-1")
    if "CRASH" in text:
        sys.exit(3)
    if "HANG" in text:
        signal.pause()
    if "GARBAGE" in text:
        return "no JSON"
    serial = re.search(r"RCNX-\\w+", text)
    notes = {{"SerialNumber": serial[0], "Sequence": "2 of 3"}} if serial else {{}}
    return {{"SourceFile": path, **notes}}

arguments = []
for line in sys.stdin:
    line = line.rstrip("\\n")
    if line != "-execute1":
        arguments.append(line)
        if arguments[-2:] == ["-stay_open", "False"]:
            break
        continue
    files = [argument for argument in arguments if not argument.startswith("-")]
    print(json.dumps([answer(file) for file in files]) if files else "12.57")
    print("{{ready1}}", flush=True)
    arguments = []
"""


def fake_exiftool(place: Path) -> Path:
    """Write the program `exiftool` into a folder. It answers with serial numbers that begin with RCNX-."""
    place.mkdir(parents=True, exist_ok=True)
    program = place / "exiftool"
    program.write_text(FAKE)
    program.chmod(0o755)
    return program


def maker_notes(serial: str, number: int = 1, length: int = 1, degrees_c: int = -3) -> bytes:
    """Return notes in the layout of a HyperFire: 16-bit numbers, little-endian; motion, full moon."""
    words = [0] * 0x36
    words[:4] = [0xF101, 3, 0, 0]
    words[0x06] = ord("M")
    words[0x07:0x09] = [number, length]
    words[0x12:0x15] = [4, degrees_c * 9 // 5 + 32 & 0xFFFF, degrees_c & 0xFFFF]
    text = serial.encode("utf-16-le").ljust(30, b"\0")[:30]
    words[0x15:0x24] = struct.unpack("<15H", text)
    return struct.pack(f"<{len(words)}H", *words)


def trap_jpeg(
    serial: str, number: int = 1, length: int = 1, shade: int = 90, taken: str = "2026:05:14 09:30:00"
) -> bytes:
    """Return a small JPEG with EXIF data and these notes; without a body serial number in EXIF."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "RECONYX", "HC500 HYPERFIRE"
    detail = exif.get_ifd(0x8769)
    detail[0x9003] = taken
    detail[0x927C] = maker_notes(serial, number, length)
    out = io.BytesIO()
    Image.new("RGB", (32, 24), (shade, number % 256, length % 256)).save(out, "jpeg", exif=exif)
    return out.getvalue()
