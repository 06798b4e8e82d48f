"""One run of an archive peer over a list of files, measured from outside.

run_peer(folder, config, files, model=…, cores=2) -> PeerRun

The command of peer.toml runs in a session of its own (Linux shares processors out by session), with FILES.txt and
OUT_FOLDER as its last words and with PEER_MODEL (folder of a version), PEER_CORES, PEER_PREPARED and the config's own
variables. `prepare`, when there is one, runs before the clock starts, once for an environment and a model; what it
leaves in PEER_PREPARED stays there. Rows appear as Parquet files, looked for every EVERY_S.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
import tomllib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.peers.commands import MARK, PeerFailed, complete, end, tail, variables
from benchmarks.peers.environments import CACHE, environment
from benchmarks.peers.part_files import PartFiles
from benchmarks.peers.peer import Config
from benchmarks.peers.watch import Watch

EVERY_S = 0.1
LONGEST_S = 3600.0


class ArchivePeer(BaseModel):
    """What peer.toml says; the first word of the commands is found in the environment's bin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    documentation: str = Field(pattern=r"^https://")
    command: list[str] = Field(min_length=1)
    prepare: list[str] = []
    configs: list[Config] = Field(min_length=1)


@dataclass(frozen=True)
class PeerRun:
    """Seconds from the start of the process. `steady_images_per_s` is None where too few part files tell it."""

    peer: str
    config: str
    images: int
    seconds: float
    first_row_s: float
    images_per_s: float
    steady_images_per_s: float | None
    cpu_s_per_1000: float
    peak_pss_mib: float
    rows: int
    errors: int


@dataclass(frozen=True)
class _Cost:
    """Of a command, from its start to its end. `ended` is its exit status, None when it was stopped."""

    ended: int | None
    seconds: float
    cpu_s: float
    peak_pss_mib: float


def read_archive_peer(folder: Path) -> ArchivePeer:
    """Raises ValidationError when peer.toml says too little, or what nobody reads."""
    return ArchivePeer(folder=folder, **tomllib.loads((folder / "peer.toml").read_text()))


def run_peer(
    folder: Path,
    config: Config | None,
    files: Sequence[Path],
    *,
    model: Path,
    cores: int,
    out: Path | None = None,
    python: Path | None = None,
    longest_s: float = LONGEST_S,
) -> PeerRun:
    """`config`: None for the peer's first. `out`: an empty folder for the rows, or nobody keeps them. `python`: left
    out, the peer's own environment, made if need be.

    Raises PeerFailed when the command fails, takes too long, or leaves other than one row a file.
    """
    peer = read_archive_peer(folder)
    config, python = config or peer.configs[0], python or environment(folder)
    with tempfile.TemporaryDirectory(prefix="rsp-", ignore_cleanup_errors=True) as scratch:
        home = Path(scratch)
        words = {"PEER_MODEL": str(model), "PEER_CORES": str(cores), "TMPDIR": scratch}
        words |= {"PEER_PREPARED": str(prepared(peer, python, words)), MARK: uuid.uuid4().hex}
        listed, rows, log = home / "files.txt", out or home / "rows", home / "peer.log"
        listed.write_text("".join(f"{file}\n" for file in files))
        rows.mkdir(exist_ok=True)
        env, parts = variables(python, words, config.env), PartFiles(rows)
        command = complete([*peer.command, str(listed), str(rows)], env)
        cost = _measured(command, folder, env, parts, log, longest_s)
        if cost.ended != 0 or parts.rows != len(files):
            how = "was stopped" if cost.ended is None else f"ended with {cost.ended}"
            said = f"{how} after {cost.seconds:.0f} s, with {parts.rows} rows of {len(files)} files"
            raise PeerFailed(f"{peer.name} ({config.name}) {said}:\n{tail(log)}")
        return _run_of(peer, config, cost, parts)


def _run_of(peer: ArchivePeer, config: Config, cost: _Cost, parts: PartFiles) -> PeerRun:
    images, first_s = parts.rows, parts.first_s
    return PeerRun(
        peer=peer.name,
        config=config.name,
        images=images,
        seconds=cost.seconds,
        first_row_s=cost.seconds if first_s is None else first_s,
        images_per_s=images / cost.seconds,
        steady_images_per_s=parts.steady_rate(),
        cpu_s_per_1000=cost.cpu_s / max(images, 1) * 1000,
        peak_pss_mib=cost.peak_pss_mib,
        rows=parts.rows,
        errors=parts.errors,
    )


def prepared(peer: ArchivePeer, python: Path, words: dict[str, str]) -> Path:
    """The folder of what `prepare` makes of PEER_MODEL; made now, if it is not there. Raises PeerFailed."""
    key = hashlib.sha256(f"{python} {words['PEER_MODEL']}".encode())
    if (code := peer.folder / "prepare.py").exists():
        key.update(code.read_bytes())
    place = CACHE / f"{peer.folder.name}-prepared-{key.hexdigest()[:12]}"
    if peer.prepare and not (place / "done").exists():
        place.mkdir(parents=True, exist_ok=True)
        env = variables(python, {**words, "PEER_PREPARED": str(place)}, {})
        command = complete(peer.prepare, env)
        done = subprocess.run(command, cwd=peer.folder, env=env, capture_output=True, check=False)
        if done.returncode:
            said = (done.stdout + done.stderr)[-4000:].decode(errors="replace")
            raise PeerFailed(f"{peer.name} could not be prepared ({done.returncode}):\n{said}")
        (place / "done").touch()
    return place


def _measured(
    command: list[str], folder: Path, env: dict[str, str], parts: PartFiles, log: Path, longest_s: float
) -> _Cost:
    with log.open("wb") as output:
        began_s = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with Watch(process.pid) as watch:
            reaped_cpu_s = _waited(process, parts, began_s, longest_s)
            seconds = time.perf_counter() - began_s
            parts.look(seconds)
    finally:
        ended = process.returncode
        end(process, env[MARK])
    # sampling misses what a process does last, the system's own count what nobody waited for
    return _Cost(ended, seconds, max(watch.cpu_s, reaped_cpu_s), watch.peak_pss_mib)


def _waited(process: subprocess.Popen[bytes], parts: PartFiles, began_s: float, longest_s: float) -> float:
    """Until it ends, or for the longest: CPU seconds of it and of all it waited for, as the system counts them."""
    while (now_s := time.perf_counter() - began_s) < longest_s:
        parts.look(now_s)
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime
        time.sleep(EVERY_S)
    return 0.0
