"""Who is measured online, all in the same way: Resight on its own cluster, and each peer.

subject.up(config) is a context that yields Up(url, path, headers, body, pid, first_answer_s): a server that has
answered. `first_answer_s` counts from the start of its command, weights and first answer included.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.harness import MODEL, WEIGHTS
from benchmarks.own_cluster import cluster
from benchmarks.peers.environments import environment
from benchmarks.peers.lines import lines_of
from benchmarks.peers.peer import Config, Peer, read_peer
from benchmarks.peers.processes import started
from serve.settings import usable_cores

RESIGHT = "Resight"
FLOOR = 0.05  # of the scores that peers send: the same answers from all
ONLINE = Path(__file__).resolve().parent / "online"


@dataclass(frozen=True)
class Up:
    """A server that has answered once."""

    url: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    pid: int
    first_answer_s: float


@dataclass(frozen=True)
class Subject:
    """`folder` is None for Resight; `lines` are those its user writes."""

    name: str
    version: str
    configs: tuple[Config, ...]
    folder: Path | None = None
    lines: int = 0
    documentation: str = ""

    @contextlib.contextmanager
    def up(self, config: Config, jpeg: bytes) -> Iterator[Up]:
        """Raises PeerFailed, or what `resight up` raises."""
        if self.folder is None:
            with _resight(jpeg) as up:
                yield up
            return
        cores = usable_cores()
        with started(self.folder, config, model=WEIGHTS.parent, cores=cores, jpeg=jpeg) as running:
            path, headers, body = running.request(jpeg)
            pairs = tuple(headers.items())
            yield Up(running.url, path, pairs, body, running.pid, running.first_answer_s)


def subjects(only: Sequence[str] = ()) -> list[Subject]:
    """Resight first, the negative control last; their environments are made here, before any clock runs."""
    found = [Subject(RESIGHT, "this commit", (Config(name="as shipped"),))]
    folders = sorted(ONLINE.glob("*/peer.toml"), key=lambda file: file.parent.name == "control")
    for folder in (file.parent for file in folders):
        if only and folder.name not in only:
            continue
        environment(folder)
        found.append(_subject(folder, read_peer(folder)))
    return found


def _subject(folder: Path, peer: Peer) -> Subject:
    own = lines_of(folder) + lines_of(folder.parents[1] / "detector.py")
    return Subject(peer.name, peer.version, tuple(peer.configs), folder, own, peer.documentation)


@contextlib.contextmanager
def _resight(jpeg: bytes) -> Iterator[Up]:
    path = f"/v1/detect?model={MODEL}&min_score={FLOOR}"
    headers: Mapping[str, str] = {"content-type": "image/jpeg"}
    began_s = time.perf_counter()
    with cluster() as here:
        httpx.post(
            here.url + path, content=jpeg, headers=dict(headers), timeout=60
        ).raise_for_status()
        first_s = time.perf_counter() - began_s
        yield Up(here.url, path, tuple(headers.items()), jpeg, here.head_pid, first_s)
