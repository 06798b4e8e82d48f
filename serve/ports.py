"""The ports of one cluster: those a user may name, and a block of inner ones that is its own.

Ray, Serve and HAProxy each have default ports, and two clusters of one machine would both take them.
So every cluster gets BLOCK consecutive ports, chosen while `start_lock` is held; Ray binds the first
one before the lock is given back, which shows the next cluster that this block is taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from model_store.errors import ClusterError
from serve.private_folder import private_folder

MAX_PORT = 65_535
LOOPBACK = ("127.0.0.1", "localhost", "::1")
BLOCK = 100
FIRST, LAST = 20_000, 30_000
"""Above the ports of Ray's workers (10002 to 19999), below those Linux gives to clients (32768 on)."""
FIXED = 8
INGRESS = 40
"""Ports of a block for single listeners; for the replicas' own HTTP, and as many for their gRPC."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts of a cluster listen; 0 means any free port."""

    http: int = 8000
    ray: int = 6379
    dashboard: int = 8265


@dataclass(frozen=True, slots=True)
class InnerPorts:
    """A block of ports that starts at `base`."""

    base: int

    @property
    def dashboard_agent(self) -> int:
        """Bound by Ray as long as the cluster lives."""
        return self.base

    @property
    def ray_client(self) -> int:
        return self.base + 1

    def serve_environment(self) -> dict[str, str]:
        """Variables of Ray Serve and its HAProxy."""
        http, grpc = self.base + FIXED, self.base + FIXED + INGRESS
        ports = {
            "RAY_SERVE_HAPROXY_METRICS_PORT": self.base + 2,
            "RAY_SERVE_HAPROXY_STATS_PORT": self.base + 3,
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": self.base + 4,
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": self.base + 5,
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": http,
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": http + INGRESS - 1,
            "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": grpc,
            "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": grpc + INGRESS - 1,
        }
        return {name: str(port) for name, port in ports.items()}


@contextlib.contextmanager
def start_lock() -> Iterator[None]:
    """Let one cluster of this user start at a time, so that none takes the ports of another.

    Raises ClusterError if the folder of the lock is not private.
    """
    with (private_folder() / "start.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def inner_ports() -> InnerPorts:
    """A block of which no single listener's port is taken. Raises ClusterError when none is left."""
    bases = range(FIRST, LAST, BLOCK)
    for base in random.sample(bases, len(bases)):
        if all(is_free("", base + i) for i in range(FIXED)):
            return InnerPorts(base)
    raise ClusterError(f"no {FIXED} free ports together between {FIRST} and {LAST}")


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now; host "" means all interfaces."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((host, port))
            return True
    return False


def preferred_or_free(port: int) -> int:
    """The port, or any other when it is taken or 0."""
    if port and is_free("127.0.0.1", port):
        return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
