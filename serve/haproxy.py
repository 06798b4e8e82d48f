"""Settings of Ray's HAProxy: its files in a private folder, its bounds, and its answer while no replica answers.

haproxy_environment(folder) -> variables that Ray reads at its start, on each node of a cluster
"""

from __future__ import annotations

from pathlib import Path

from model_store.machine import usable_cores


def haproxy_environment(folder: Path) -> dict[str, str]:
    """Return the variables of Ray's HAProxy, with all its files in `folder`, which must be private: the admin
    socket accepts every command from whoever can open it.
    """
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, usable_cores())),
        # short names: Ray adds the node's 56 digits, and HAProxy takes 95 bytes for a socket
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }
