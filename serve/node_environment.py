"""Environment variables that Ray needs on each node of a cluster, in addition to places and secrets.

On a node of `cluster.yaml` or KubeRay, before `ray start`: node=$(python -m serve.node_environment) && eval "$node"

Most of them are settings of Ray's HAProxy: private files, bounds, and its answer if no replica answers. Ray renders its
configuration from a template, which lacks settings for some directives. These are appended to the balancing algorithm,
which Ray copies verbatim as the last line of the `defaults` section.
"""

from __future__ import annotations

import os
import resource
import shlex
from pathlib import Path

from model_store.machine import usable_cores
from serve.cluster.private_folder import private_folder

LOGS = {"RAY_ROTATION_MAX_BYTES": str(64 * 1024 * 1024), "RAY_ROTATION_BACKUP_COUNT": "3"}
"""Log rotation of each process, including replicas; variables that are already set take precedence.

Ray rotates the output of workers only if the first one is set.
"""
LIGHT = {
    "RAY_prestart_worker_first_driver": "0",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_worker_niceness": "0",
    "RAY_event_stats": "0",
    "RAY_metrics_report_interval_ms": "30000",
    "RAY_task_events_report_interval_ms": "10000",
    "RAY_raylet_report_resources_period_milliseconds": "500",
    "RAY_DASHBOARD_AGENT_CHECK_PARENT_INTERVAL_S": "2",
    "EVENT_AGENT_REPORT_INTERVAL_SECONDS": "2",
    "METRICS_RECORD_INTERVAL_S": "30",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
}
"""Settings that reduce Ray's own load on a small machine (docs/decisions/0012). Variables already set take precedence.

- No idle workers are started before a job: eight of them, at 2 s of CPU each.
- Applications are checked for changes twice per second instead of ten times.
- Messages of a request do not switch between two threads: no code of Resight blocks the event loop.
- Workers, including replicas, have the same priority as Ray's dashboard, not a lower one.
- Statistics, task events and charts of the dashboard are up to 10 to 30 s old.
"""
MAX_CONNECTIONS = 16_384
FILES_PER_CONNECTION = 2.5
"""Open files: a socket on either side, and both ends of a pipe for every fourth connection."""
OTHER_FILES = 300
"""Open files of HAProxy apart from connections: listeners, health checks, threads."""
HEADERS_S = 10
"""Seconds for the headers of a request to arrive, and for the next request to start. Then the connection is closed."""
IDLE_S = 30
"""Seconds for which a client may pause while it sends a body or reads an answer."""


def node_environment(folder: Path) -> dict[str, str]:
    """Return the variables; `folder` is the user's private folder, for HAProxy's files."""
    return {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.api.headers:middlewares",
        **haproxy_environment(folder),
        **{name: os.environ.get(name, value) for name, value in (LOGS | LIGHT).items()},
    }


def haproxy_environment(folder: Path) -> dict[str, str]:
    """Return the variables of Ray's HAProxy, and write its answer for 502 and 503 to `folder`.

    All its files are in `folder`, which must be private: the admin socket accepts commands from every user who can
    open it.
    """
    unavailable = folder / "unavailable.http"
    unavailable.write_bytes(unavailable_answer())
    more = (
        f"timeout http-request {HEADERS_S}s",
        f"timeout http-keep-alive {HEADERS_S}s",
        # an unfinished body costs a replica nothing: a request is forwarded with its first 16 KiB or its whole body
        "option http-buffer-request",
        # over a connection that was used before, HAProxy reports the end of a replica by closing the client's
        "option http-server-close",
        # with splicing, a client that disconnects keeps a thread of HAProxy busy until the server answers
        "no option splice-request",
        "no option splice-response",
        # Ray's default file turns these into a 500 in plain text, which clients do not repeat
        f"errorfile 502 {unavailable}",
        f"errorfile 503 {unavailable}",
    )
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, usable_cores())),
        "RAY_SERVE_HAPROXY_MAXCONN": str(max_connections()),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(IDLE_S),
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "\n    ".join(("leastconn", *more)),
        # short names: Ray adds the node's 56 digits, and a socket path of HAProxy is limited to 95 bytes
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def max_connections() -> int:
    """Return the connections that the limit of open files allows, up to MAX_CONNECTIONS; HAProxy refuses more."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(64, min(MAX_CONNECTIONS, int((files - OTHER_FILES) / FILES_PER_CONNECTION)))


def unavailable_answer() -> bytes:
    """Return the HTTP answer for a request if its replica ended or if none is available."""
    from serve.api.headers import unavailable  # slow import (0.5 s) that most commands do not need

    answer = unavailable()
    headers = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
    return b"HTTP/1.1 503 Service Unavailable\r\n%s\r\n%s" % (headers, bytes(answer.body))


def main() -> None:
    """Print the variables as shell exports, with RAY_TMPDIR for Ray's own files. Raises as `private_folder`."""
    folder = private_folder()
    for name, value in {"RAY_TMPDIR": str(folder), **node_environment(folder)}.items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
