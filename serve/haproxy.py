"""Settings of Ray's HAProxy: its files in a private folder, its bounds, and its answer while no replica answers.

haproxy_environment(folder) -> variables that Ray reads at its start, on each node of a cluster

Ray renders the configuration from a template. The template has no setting for some directives; they follow the
balancing algorithm, which Ray copies verbatim as the last line of the `defaults` section.
"""

from __future__ import annotations

import resource
from pathlib import Path

from model_store.machine import usable_cores

MAX_CONNECTIONS = 16_384
FILES_PER_CONNECTION = 2.5
"""A socket on either side, and both ends of a pipe for each fourth connection."""
OTHER_FILES = 300
"""Open files of HAProxy that belong to no connection: listeners, health checks, threads."""
HEADERS_S = 10
"""Seconds for the headers of a request to arrive, and for the next request to begin; then the connection is closed."""
IDLE_S = 30
"""Seconds that a client may neither send what it announced nor read what it asked for."""


def haproxy_environment(folder: Path) -> dict[str, str]:
    """Return the variables of Ray's HAProxy, with all its files in `folder`, which must be private: the admin
    socket accepts every command of each user who can open it. Writes the answer for 502 and 503 there.
    """
    unavailable = folder / "unavailable.http"
    unavailable.write_bytes(unavailable_answer())
    more = (
        f"timeout http-request {HEADERS_S}s",
        f"timeout http-keep-alive {HEADERS_S}s",
        # a spliced request whose client hangs up keeps a thread of HAProxy busy until its server answers
        "no option splice-request",
        "no option splice-response",
        # Ray's own file turns these into a 500 in plain text, which no client repeats
        f"errorfile 502 {unavailable}",
        f"errorfile 503 {unavailable}",
    )
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, usable_cores())),
        "RAY_SERVE_HAPROXY_MAXCONN": str(max_connections()),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(IDLE_S),
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "\n    ".join(("leastconn", *more)),
        # short names: Ray adds the node's 56 digits, and HAProxy takes 95 bytes for a socket
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def max_connections() -> int:
    """Return how many connections HAProxy may hold: as many as its limit of open files allows, up to
    MAX_CONNECTIONS. HAProxy refuses to start with more.
    """
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(64, min(MAX_CONNECTIONS, int((files - OTHER_FILES) / FILES_PER_CONNECTION)))


def unavailable_answer() -> bytes:
    """Return the HTTP answer for requests that a replica was answering when it ended, or that none can take."""
    from serve.unavailable import unavailable  # which takes half a second: commands need none of it

    answer = unavailable()
    headers = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
    return b"HTTP/1.1 503 Service Unavailable\r\n%s\r\n%s" % (headers, bytes(answer.body))
