"""The Ray head of this machine: its command line, its environment, and the token that its ports ask for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import sys
from pathlib import Path

from model_store.machine import usable_cores
from serve.node_environment import node_environment
from serve.ports import InnerPorts
from serve.private_folder import private_folder
from serve.settings import Settings

LOGICAL_CPUS = 8
"""At least this many logical CPUs: each Ray Data operator and replica takes a fraction of one, and a
cluster that runs out of them waits silently (docs/decisions/0005)."""

RAY_FOLDER = "ray"
"""Ray's own folder, below the cluster's: Ray opens it to every user."""

_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)
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
"""What a small machine can do without (docs/decisions/0012); a variable that is set already wins.

Eight idle workers per job, 2 s of CPU each to start. Ten looks a second at applications that do not change. A
hand-over between two threads for each message of a request: ours blocks no event loop. Workers, replicas among them,
that give way to Ray's dashboard. Fresh statistics, task events and charts there: they are 10 to 30 s old instead.
"""


def head_command(
    gcs: int, dashboard: int, inner: InnerPorts, folder: Path, object_store_mib: int
) -> list[str]:
    return [
        # the module, not the script `ray`: its first line cannot name every folder of an environment
        *(plain_python(), "-m", "ray.scripts.scripts"),
        *("start", "--head", "--block", "--disable-usage-stats"),
        f"--port={gcs}",
        "--dashboard-host=127.0.0.1",
        "--include-log-monitor=false",  # it copies worker logs to drivers, and ours do not read them
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={inner.dashboard_agent}",
        f"--ray-client-server-port={inner.ray_client}",
        f"--num-cpus={max(LOGICAL_CPUS, usable_cores())}",
        f"--object-store-memory={object_store_mib * 1024 * 1024}",
        f"--temp-dir={folder / RAY_FOLDER}",
    ]


def head_environment(settings: Settings, inner: InnerPorts, folder: Path) -> dict[str, str]:
    """Return the variables of all processes of the cluster; `folder` is the cluster's private one."""
    ours = {
        **node_environment(folder),
        **inner.serve_environment(),
        **{name: os.environ.get(name, value) for name, value in LIGHT.items()},
        **authentication(settings),
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RESIGHT_HOME": str(settings.home_path),
        "RESIGHT_MODELS": settings.models_url,
        "RESIGHT_TABLES": settings.tables_url,
        "RESIGHT_UPLOADS": settings.uploads_url,
        **(
            {"RESIGHT_TOKENS": settings.tokens_url} if settings.tokens else {}
        ),  # then it must exist
        "PATH": f"{Path(plain_python()).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    return {**os.environ, **ours}


def plain_python() -> str:
    """Return the path of this Python by a name that a shell takes without quotes, as Ray starts its workers.

    If the environment's folder has another name, it is linked from the private folder. Raises ClusterError.
    """
    if _PLAIN.fullmatch(sys.executable):
        return sys.executable
    environment = Path(sys.executable).parent.parent
    digest = hashlib.sha256(os.fsencode(environment)).hexdigest()[:16]
    link = private_folder() / f"env-{digest}"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(environment)
    return str(link / "bin" / Path(sys.executable).name)


def authentication(settings: Settings) -> dict[str, str]:
    """Ray's own ports listen on every interface, so they always ask for this token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path(settings))}


def token_path(settings: Settings) -> Path:
    """Made on first use, readable by its user alone."""
    path = settings.ray_token_path
    if not path.exists():
        settings.home_path.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path
