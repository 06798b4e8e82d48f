"""Servers of the online comparison, measured in the same way: Resight in one process and on a cluster, and peers.

subject.up(config) is a context that yields Up(url, path, headers, body, pid, first_answer_s): a server that has
answered. `first_answer_s` counts from the start of its command, weights and first answer included.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.harness import MODEL, WEIGHTS
from benchmarks.own_cluster import Cluster, cluster, server
from benchmarks.peers.lines import lines_of
from benchmarks.peers.peer import Config, Peer, read_peer
from benchmarks.peers.processes import started
from model_store.machine import usable_cores

RESIGHT, ON_RAY = "Resight", "Resight on Ray"
"""`resight serve` and `resight reprocess` without a cluster; the same with `resight up`."""
HOSTS = {RESIGHT: server, ON_RAY: cluster}
FLOOR = 0.05  # of the scores that peers send: the same answers from all
CONTROL = "control"
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
    detections: Callable[[bytes], list[dict[str, Any]]]
    """Of the body of an answer."""


@dataclass(frozen=True)
class Subject:
    """`folder` is None for Resight; `lines` are those its user writes."""

    name: str
    version: str
    configs: tuple[Config, ...]
    folder: Path | None = None
    lines: int = 0
    documentation: str = ""

    @property
    def is_control(self) -> bool:
        return self.folder is not None and self.folder.name == CONTROL

    @contextlib.contextmanager
    def up(self, config: Config, jpeg: bytes) -> Iterator[Up]:
        """Raises PeerFailed, or what the commands of Resight raise."""
        if self.folder is None:
            with _resight(HOSTS[self.name], jpeg) as up:
                yield up
            return
        cores = usable_cores()
        with started(self.folder, config, model=WEIGHTS.parent, cores=cores, jpeg=jpeg) as running:
            path, headers, body = running.request(jpeg)
            pairs = tuple(headers.items())
            pid, first_s = running.pid, running.first_answer_s
            yield Up(running.url, path, pairs, body, pid, first_s, running.detections)


def subjects(only: Sequence[str] = ()) -> list[Subject]:
    """Resight first, the negative control last. Raises SystemExit for a name that is none."""
    found = [Subject(name, "this commit", (Config(name="as shipped"),)) for name in HOSTS]
    return found + [_subject(folder, read_peer(folder)) for folder in folders_of(ONLINE, only)]


def folders_of(kind: Path, only: Sequence[str]) -> list[Path]:
    """The peers below a folder, the negative control last. Raises SystemExit for a name that is none."""
    found = [file.parent for file in sorted(kind.glob("*/peer.toml"))]
    if unknown := set(only) - {folder.name for folder in found}:
        raise SystemExit(f"no peer is called {', '.join(sorted(unknown))}")
    found.sort(key=lambda folder: folder.name == CONTROL)
    return [folder for folder in found if not only or folder.name in only]


def _subject(folder: Path, peer: Peer) -> Subject:
    own = lines_of(folder) + lines_of(folder.parents[1] / "detector.py")
    return Subject(peer.name, peer.version, tuple(peer.configs), folder, own, peer.documentation)


@contextlib.contextmanager
def _resight(host: Callable[[], AbstractContextManager[Cluster]], jpeg: bytes) -> Iterator[Up]:
    path = f"/v1/detect?model={MODEL}&min_score={FLOOR}"
    headers: Mapping[str, str] = {"content-type": "image/jpeg"}
    began_s = time.perf_counter()
    with host() as here:
        httpx2.post(here.url + path, content=jpeg, headers=dict(headers), timeout=60).raise_for_status()
        first_s = time.perf_counter() - began_s
        pairs = tuple(headers.items())
        yield Up(here.url, path, pairs, jpeg, here.head_pid, first_s, _detections)


def _detections(answer: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer)["detections"]
    return found
