"""Ports of a cluster: a block of its own, whoever else is on the machine."""

from __future__ import annotations

import contextlib
import fcntl
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.errors import ClusterError
from serve.cluster import ports
from serve.cluster.ports import (
    BLOCK,
    FIRST_PORT,
    FIXED,
    LAST_PORT,
    inner_ports,
    network_url,
    preferred_or_free,
    start_lock,
)


@contextlib.contextmanager
def listening(port: int = 0) -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        yield server.getsockname()[1]


def test_the_preferred_port_gives_way_when_it_is_taken_or_zero() -> None:
    with listening() as port:
        other = preferred_or_free(port)
        assert other not in (port, 0)
    assert preferred_or_free(port) == port
    assert preferred_or_free(0) != 0


def test_a_block_is_aligned_whole_and_none_of_its_ports_is_used_twice() -> None:
    inner = inner_ports()
    assert inner.base in range(FIRST_PORT, LAST_PORT, BLOCK)
    named = {k: int(v) for k, v in inner.serve_environment().items()}
    single = [inner.base, inner.ray_client]
    single += [port for name, port in named.items() if "INGRESS" not in name]
    low, high = "RAY_SERVE_DIRECT_INGRESS_MIN_{}_PORT", "RAY_SERVE_DIRECT_INGRESS_MAX_{}_PORT"
    ranges = [range(named[low.format(p)], named[high.format(p)] + 1) for p in ("HTTP", "GRPC")]
    everything = [*single, *ranges[0], *ranges[1]]
    assert len(set(everything)) == len(everything)
    assert set(everything) <= set(range(inner.base, inner.base + BLOCK))
    assert all(len(r) >= 32 for r in ranges), "room for the replicas of a node"


def test_a_block_with_a_listener_in_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = inner_ports().base
    others = (inner_ports().base for _ in range(100))  # free too: a test cluster may have a block
    free_one = next(base for base in others if base != taken)
    monkeypatch.setattr(ports.random, "sample", lambda bases, k: [taken, free_one])
    with listening(taken + FIXED - 1):
        assert inner_ports().base == free_one
        monkeypatch.setattr(ports.random, "sample", lambda bases, k: [taken])
        with pytest.raises(ClusterError, match="between 20000 and 30000"):
            inner_ports()


def test_only_one_cluster_starts_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "private_folder", lambda: tmp_path)
    with start_lock():
        (lock,) = tmp_path.iterdir()
        with lock.open("a") as second, pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open("a") as second:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("route", [True, False])
def test_others_reach_every_interface_by_the_address_of_this_machine_or_its_name(
    monkeypatch: pytest.MonkeyPatch, route: bool
) -> None:
    class Probe(socket.socket):
        def connect(self, _: object) -> None:
            if not route:
                raise OSError("Network is unreachable")

        def getsockname(self) -> tuple[str, int]:
            return "10.1.2.3", 40000

    monkeypatch.setattr(ports.socket, "socket", Probe)
    monkeypatch.setattr(ports.socket, "gethostname", lambda: "camera-server")
    assert network_url("0.0.0.0", 8000) == f"http://{'10.1.2.3' if route else 'camera-server'}:8000"
    assert network_url("::", 80) == f"http://{'10.1.2.3' if route else 'camera-server'}:80"
    assert network_url("127.0.0.1", 8000) == ""
