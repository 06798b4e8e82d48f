"""A virtual environment for each peer, made once from its requirements.txt, so that no peer's pins bind another.

environment(folder of a peer) -> the environment's python
made(python) -> Made(install_s, installed_mib), as measured when it was made

It lies in .bench/PEER-DIGEST of the repository; the digest is of the pins and of this python's version, so that
either change makes another one. One that was left half made is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".bench"
MADE = "made.json"  # written last: without it an environment is half made


@dataclass(frozen=True)
class Made:
    """What it took: the install with downloads, or from pip's cache; and what lies on the disk, pip included."""

    install_s: float
    installed_mib: float


def environment(folder: Path, cache: Path = CACHE) -> Path:
    """Raises RuntimeError, with what pip said, when the peer cannot be installed."""
    requirements = folder / "requirements.txt"
    place = cache / f"{folder.name}-{_digest(requirements)}"
    python = place / "bin" / "python"
    cache.mkdir(exist_ok=True)
    with _alone(cache / f"{place.name}.lock"):
        if not (place / MADE).exists():
            began_s = time.perf_counter()
            _run([sys.executable, "-m", "venv", "--clear", str(place)])
            _run([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)])
            facts = Made(round(time.perf_counter() - began_s, 1), round(_mib(place), 1))
            (place / MADE).write_text(json.dumps(asdict(facts)))
    return python


def made(python: Path) -> Made:
    """Of an environment that `environment` returned."""
    return Made(**json.loads((python.parent.parent / MADE).read_text()))


def packages(folder: Path) -> dict[str, str]:
    """Name to version of all that is installed beside the peer, what it pulled in included."""
    listed = _run([str(environment(folder)), "-m", "pip", "list", "--format", "json"])
    return {one["name"]: one["version"] for one in json.loads(listed)}


def _digest(requirements: Path) -> str:
    said = f"{platform.python_implementation()} {platform.python_version()}\n"
    return hashlib.sha256(said.encode() + requirements.read_bytes()).hexdigest()[:12]


def _run(command: list[str]) -> str:
    # PYTHONPATH would show the peer our packages in place of its own
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


def _mib(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 2**20


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One at a time, over processes; the system lets go when a holder dies."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
