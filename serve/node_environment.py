"""Environment variables that Ray needs on each node of a cluster, in addition to places and secrets.

On a node of `cluster.yaml`, before `ray start`: node=$(python -m serve.node_environment) && eval "$node"
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from serve.cluster.haproxy import haproxy_environment
from serve.cluster.private_folder import private_folder

LOGS = {"RAY_ROTATION_MAX_BYTES": str(64 * 1024 * 1024), "RAY_ROTATION_BACKUP_COUNT": "3"}
"""Log rotation of each process, including replicas; variables that are already set take precedence.

Ray rotates the output of workers only if the first one is set.
"""


def node_environment(folder: Path) -> dict[str, str]:
    """Return the variables; `folder` is the user's private folder, for HAProxy's files."""
    return {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.api.headers:middlewares",
        **haproxy_environment(folder),
        **{name: os.environ.get(name, value) for name, value in LOGS.items()},
    }


def main() -> None:
    """Print the variables as shell exports, with RAY_TMPDIR for Ray's own files.

    Raises ClusterError if another user can change the private folder.
    """
    folder = private_folder()
    for name, value in {"RAY_TMPDIR": str(folder), **node_environment(folder)}.items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
