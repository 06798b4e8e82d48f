"""Read the logs of the cluster that 'resight up' started on this machine, also after it has ended.

cluster_files | run_files --LogTail.look()--> lines in order of time; the next look returns only new lines
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batch.jobs.cluster_jobs import runs_of
from model_store.errors import ClusterError
from serve.cluster.head import RAY_FOLDER, folder_of, read_state
from serve.cluster.private_folder import private_folder
from serve.settings import Settings

TAIL_BYTES = 1 << 20
"""Bytes read from the end of each file at the first look."""
HEAD_BYTES = 4096
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters: clients choose parts of some lines, and a terminal must not interpret them."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log; `at` is a time in UTC, empty before the first line of a file with a time."""

    at: str
    source: str
    text: str


class LogTail:
    """Follow files as they grow, and new files as they appear."""

    def __init__(self, files: Callable[[], Sequence[Path]]) -> None:
        self._files = files
        self._is_first = True
        self._read: dict[Path, int] = {}
        self._at: dict[Path, str] = {}

    def look(self) -> list[LogLine]:
        """Return the lines since the last look; at the first look, those of the last TAIL_BYTES of each file."""
        lines: list[LogLine] = []
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                lines += self._new(path)
        self._is_first = False
        return sorted(lines, key=lambda line: line.at)

    def _new(self, path: Path) -> list[LogLine]:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = self._read.get(path, max(0, size - TAIL_BYTES) if self._is_first else 0)
            start = start if start <= size else 0  # it was rotated
            file.seek(start)
            data = file.read(size - start)
            whole = data[: data.rfind(b"\n") + 1]
            if start and path not in self._read:
                whole = whole.partition(b"\n")[2]
        self._read[path] = start + data.rfind(b"\n") + 1
        source = _source(path)
        lines: list[LogLine] = []
        for line in whole.decode(errors="replace").splitlines():
            if line and not line.startswith(":"):  # Ray's job and actor markers
                at, text = _read(line)
                self._at[path] = at or self._at.get(path, "")
                lines.append(LogLine(self._at[path], source, _CONTROL.sub("?", text)))
        return lines


def logs_folder(settings: Settings) -> Path:
    """Return the log folder of the newest session. Raises ClusterError if this machine has none."""
    private_folder()
    state = read_state(settings)
    own = Path(state.temp_dir) if state else folder_of(settings)
    folder = own / RAY_FOLDER / "session_latest" / "logs"
    if not folder.is_dir():
        raise ClusterError(
            f"no logs of a cluster of {settings.home_path} on this machine: none was started with 'resight up' since "
            f"{private_folder().parent} was emptied. Logs of another cluster are on its nodes"
        )
    return folder


def cluster_files(logs: Path) -> list[Path]:
    """Return the logs of Serve's controller, proxy and replicas, and the output of our processes."""
    return [*logs.glob("serve/*.log"), *logs.glob("worker-*.out")]


def run_files(settings: Settings, run_id: str) -> list[Path]:
    """Return the logs of a run's jobs, in all sessions; none without a cluster of this machine."""
    try:
        sessions = logs_folder(settings).parent.parent
    except ClusterError:
        return []
    logs = sessions.glob("session_[0-9]*/logs/job-driver-*.log")
    return [path for path in logs if run_id in runs_of(_entrypoint(path))]


def _entrypoint(path: Path) -> str:
    head = _head(path)
    return head.partition("Running entrypoint for job ")[2].partition(": ")[2].partition("\n")[0]


def _source(path: Path) -> str:
    """Return `replica_detect_Detector_06c0ocvx`, or actor name and process id for the output of a process."""
    if path.suffix != ".out":
        return path.stem.removeprefix("job-driver-")
    actor = re.search(r"^:actor_name:(.+)$", _head(path), re.MULTILINE)
    process = path.stem.rpartition("-")[2]
    return f"{actor[1].removeprefix('ServeReplica:') if actor else 'worker'} {process}"


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES).decode(errors="replace")


def _read(line: str) -> tuple[str, str]:
    """Return time and text of a JSON line, ours or Serve's; for any other line no time, and the line."""
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return "", line
    if isinstance(entry, dict) and {"message", "levelname", "timestamp_ns"} <= entry.keys():
        at = f"{datetime.fromtimestamp(entry['timestamp_ns'] / 1e9, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
        words = [entry["levelname"].lower(), entry["message"], entry.get("exc_text") or ""]
        return at, " ".join(words).strip().replace("\n", "\n  ")
    if isinstance(entry, dict) and {"event", "level", "timestamp"} <= entry.keys():
        at, level, event = (str(entry.pop(name)) for name in ("timestamp", "level", "event"))
        fields = (f"{name}={_shown(value)}" for name, value in entry.items())
        return at, " ".join([level, event, *fields]).replace("\n", "\n  ")
    return "", line


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
