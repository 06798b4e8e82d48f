"""Ports of a cluster: those that a user may set, and a separate block of inner ports.

Ray, Serve and HAProxy have default ports, with which two clusters on one machine would conflict. So every cluster gets
BLOCK consecutive ports, chosen while `start_lock` is held. Ray binds the first one before the lock is released, which
marks the block as used.
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from model_store.errors import ClusterError
from serve.cluster.private_folder import private_folder

MAX_PORT = 65_535
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Loopback address by the host that stands for every interface, to which nothing can connect."""
BLOCK = 100
FIRST_PORT, LAST_PORT = 20_000, 30_000
"""Range above the ports of Ray's workers (10002 to 19999) and below Linux's ephemeral ports (from 32768)."""
FIXED = 8
INGRESS = 40
"""Ports of a block: FIXED for single listeners, INGRESS for the replicas' HTTP, and INGRESS for their gRPC."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports that a user may set; 0 means any free port."""

    http: int = 8000
    ray: int = 6379
    dashboard: int = 8265


@dataclass(frozen=True, slots=True)
class InnerPorts:
    """A block of ports that starts at `base`, which Ray's dashboard agent binds as long as the cluster runs."""

    base: int

    @property
    def ray_client(self) -> int:
        return self.base + 1

    def serve_environment(self) -> dict[str, str]:
        """Return the variables of Ray Serve and its HAProxy."""
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
    """Lock the start of this user's clusters, so that two cannot choose the same ports. Raises as `private_folder`."""
    with (private_folder() / "start.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def inner_ports() -> InnerPorts:
    """Return a random block with free ports for the single listeners. Raises ClusterError if there is none."""
    bases = range(FIRST_PORT, LAST_PORT, BLOCK)
    for base in random.sample(bases, len(bases)):
        if all(is_free("", base + i) for i in range(FIXED)):
            return InnerPorts(base)
    raise ClusterError(
        f"no block of {FIXED} free ports between {FIRST_PORT} and {LAST_PORT}; stop clusters that you do not need"
    )


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen on this port; host "" means all interfaces."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((host, port))
            return True
    return False


def require_free(host: str, port: int, command: str) -> None:
    """Raise ClusterError if another program listens on this port; `command` is the one that wants it."""
    if not is_free(host, port):
        raise ClusterError(
            f"{host}:{port} is in use; stop the program that listens there, or choose another port with "
            f"'resight {command} --port'"
        )


def url_of(host: str, port: int) -> str:
    """Return the URL of a server that listens on this host, an address or a name."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def local_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens on this host."""
    return url_of(EVERY_INTERFACE.get(host, host), port)


def network_url(host: str, port: int) -> str:
    """Return the URL at which others reach a server that listens on every interface; for other hosts, an empty text.

    It has this machine's address on the route to other networks, or its name without such a route.
    """
    if host not in EVERY_INTERFACE:
        return ""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the address is reserved for documentation
            return url_of(probe.getsockname()[0], port)
        except OSError:
            return url_of(socket.gethostname(), port)


def preferred_or_free(port: int) -> int:
    """Return the port, or any free one if it is in use or 0."""
    if port and is_free("127.0.0.1", port):
        return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
