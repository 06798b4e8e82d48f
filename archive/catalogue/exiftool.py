"""Read the maker notes of camera traps with ExifTool: serial number, sequence, trigger, temperature and moon.

ExifTool().read([first bytes of files]) -> MakerNotes of each, or the error of a file that ExifTool cannot read
One process `exiftool -stay_open` reads batches of files. It gets copies of their first bytes under new names, so that
archives on S3 are read too and no foreign name becomes an argument. If it ends or takes too long, the files of the
batch are read one by one. ExifTool 12.57 has the notes of Reconyx; for other makers it finds what they store under the
same names.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archive.catalogue.exif import clean_text
from model_store.errors import BadRequest, ImageUnreadable

HEAD_BYTES = 256 * 1024
"""Bytes of a file that ExifTool gets; the notes of a JPEG are among its first 64 KiB."""
BATCH = 64
FILE_S, START_S, STOP_S = 5.0, 30.0, 5.0
"""Maximum time for a file, to start and to end."""
_TAGS = ("SerialNumber", "Sequence", "TriggerMode", "AmbientTemperature", "MoonPhase")
_OPTIONS = ("-json", "-fast", "-m", "-q", *(f"-{tag}" for tag in _TAGS))
_READY = b"{ready1}"
"""Answer to -execute1; -q suppresses the one to -execute."""


@dataclass(frozen=True, slots=True)
class MakerNotes:
    """Columns of `media` with the same names; None if the notes have no such value."""

    camera_serial: str | None = None
    sequence_number: int | None = None
    sequence_length: int | None = None
    trigger_mode: str | None = None
    temperature_c: float | None = None
    moon_phase: str | None = None


class _Ended(Exception):
    """The process ended, was stopped after its time, or answered something else than JSON."""


class ExifTool:
    """One process, for one thread; a context manager. Raises BadRequest if ExifTool is not installed or fails."""

    def __init__(self, command: str = "exiftool", file_s: float = FILE_S) -> None:
        self._command, self._file_s = command, file_s
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="resight-exiftool-")

    def __enter__(self) -> ExifTool:
        try:
            self._execute(["-ver"], START_S)
        except (OSError, _Ended) as error:
            self.__exit__()
            raise BadRequest(
                f"cannot run '{self._command}': {error}. Install ExifTool (Debian: apt install "
                "libimage-exiftool-perl), or use 'resight ingest --no-exiftool'"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._folder.cleanup()

    def read(self, heads: Sequence[bytes]) -> list[MakerNotes | ImageUnreadable]:
        """Return the notes of each file, in order."""
        if not heads:
            return []
        files = [Path(self._folder.name) / f"{n}.jpg" for n in range(len(heads))]
        for file, head in zip(files, heads, strict=True):
            file.write_bytes(head)
        try:
            text = self._execute([*_OPTIONS, *map(str, files)], self._file_s * len(files))
            found = {row["SourceFile"]: row for row in _rows(text)}
            return [_notes(found.get(str(file), {})) for file in files]
        except (OSError, _Ended) as error:
            if len(heads) > 1:
                return [notes for head in heads for notes in self.read([head])]
            return [ImageUnreadable(f"ExifTool failed: {error}; --verify reads it again")]

    def _execute(self, arguments: Sequence[str], within_s: float) -> bytes:
        """Return the output for one set of arguments. Raises OSError if the process cannot start, _Ended."""
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        timer = threading.Timer(within_s, process.kill)
        timer.start()
        lines: list[bytes] = []
        try:
            process.stdin.write("\n".join([*arguments, "-execute1", ""]).encode())
            process.stdin.flush()
            for line in process.stdout:
                if line.strip() == _READY:
                    return b"".join(lines)
                lines.append(line)
        except BrokenPipeError:
            pass
        finally:
            timer.cancel()
        self._stop()
        if process.returncode == -9:
            raise _Ended(f"it was stopped after {within_s:g} s")
        raise _Ended(f"it ended with code {process.returncode}")

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [self._command, "-stay_open", "True", "-@", "-"]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return self._process

    def _stop(self) -> None:
        """End the process: it ends at the end of its input, and is killed if it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            process.communicate(b"-stay_open\nFalse\n", timeout=STOP_S)
        process.kill()  # nothing happens to one that has ended
        process.wait()


def _rows(text: bytes) -> list[dict[str, Any]]:
    """Return the objects of an answer, with numbers as text: a serial number may look like one."""
    try:
        rows = json.loads(text or b"[]", parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        raise _Ended("it answered something else than JSON") from None
    if isinstance(rows, list) and all(isinstance(row, dict) and "SourceFile" in row for row in rows):
        return rows
    raise _Ended("its answer has another form")


def _notes(row: dict[str, Any]) -> MakerNotes:
    """Return the values of one object; a value of another form is left out."""
    text = {tag: clean_text(str(row[tag])) for tag in _TAGS if row.get(tag) is not None}
    sequence = re.fullmatch(r"(\d{1,9}) of (\d{1,9})", text.get("Sequence") or "")
    number, length = (int(sequence[1]), int(sequence[2])) if sequence else (None, None)
    in_sequence = number is not None and length is not None and 1 <= number <= length
    degrees = re.fullmatch(r"(-?\d{1,3}(?:\.\d+)?) ?C?", str(row.get("AmbientTemperature", "")))
    return MakerNotes(
        camera_serial=text.get("SerialNumber"),
        sequence_number=number if in_sequence else None,
        sequence_length=length if in_sequence else None,
        trigger_mode=text.get("TriggerMode"),
        temperature_c=float(degrees[1]) if degrees else None,
        moon_phase=text.get("MoonPhase"),
    )
