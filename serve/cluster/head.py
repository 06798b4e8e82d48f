"""Start, find and stop the Ray head of a RESIGHT_HOME on this machine.

start(ports) -> ClusterState, saved in HOME/cluster.json; stop() ends only the processes of this cluster.

Ray runs in its own session, with its own temporary folder and ports. So several clusters on one machine, such as a demo
and a test run, do not affect each other. `ray stop` would end them all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from model_store.errors import ClusterError
from model_store.machine import usable_cores
from model_store.storage import Folder
from serve.cluster.ports import (
    InnerPorts,
    Ports,
    inner_ports,
    local_url,
    preferred_or_free,
    require_free,
    start_lock,
    url_of,
)
from serve.cluster.private_folder import private_folder, private_path
from serve.embedded.home_lock import served_at, unusable_home
from serve.node_environment import node_environment
from serve.settings import Settings

LOGICAL_CPUS = 8
"""Minimum number of logical CPUs. Each Ray Data operator and replica takes a fraction of one, and a cluster without
free ones waits silently (docs/decisions/0005)."""

RAY_FOLDER = "ray"
"""Ray's own folder inside that of the cluster: Ray makes it readable for every user."""

_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


def head_command(gcs: int, dashboard: int, inner: InnerPorts, folder: Path, object_store_mib: int) -> list[str]:
    """Return the command that starts the head; `folder` is the cluster's private one."""
    return [
        # not the script `ray`: its shebang line does not work with every path of an environment
        *(plain_python(), "-m", "ray.scripts.scripts"),
        *("start", "--head", "--block", "--disable-usage-stats"),
        f"--port={gcs}",
        "--dashboard-host=127.0.0.1",
        "--include-log-monitor=false",  # it copies worker logs to drivers, which Resight does not use
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={inner.base}",
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
        **authentication(settings),
        "RESIGHT_HOME": str(settings.home_path),
        **places(settings),
        "RESIGHT_TOKENS": settings.tokens and settings.tokens_url,  # a token file that is named must exist
        "PATH": f"{Path(plain_python()).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    return {**os.environ, **ours}


def places(settings: Settings) -> dict[str, str]:
    """Return the variables of the places that the processes of a cluster keep until it stops."""
    return {
        "RESIGHT_MODELS": settings.models_url,
        "RESIGHT_TABLES": settings.tables_url,
        "RESIGHT_UPLOADS": settings.uploads_url,
        "RESIGHT_TOKENS": settings.tokens_url,
    }


def plain_python() -> str:
    """Return a path of this Python that needs no quotes in a shell, as Ray starts its workers without quotes.

    If its own path needs quotes, the environment is linked from the private folder. Raises ClusterError.
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
    """Return the variables of Ray's token. It is always required, as Ray listens on every interface."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path(settings))}


def token_path(settings: Settings) -> Path:
    """Return the path of the token file, created on first use and readable only by its user."""
    path = settings.ray_token_path
    if not (path.exists() and path.stat().st_size):  # an earlier version left an empty one if it was killed
        token = secrets.token_hex(32).encode()
        Folder(str(path.parent)).update(path.name, lambda old: old or token, mode=0o600)
    return path


FIRST_LOG_BYTES = 2**16
"""Space in the home without which Ray is not started: its log would not show why it ended."""
START_TIMEOUT_S = 120
RUN_STOP_S = 30
GRACE_S = 5
START_FOLDER = "cwd"
"""Folder in which Ray is started. It is on the module path of every Ray process, so it must be empty and private."""
MAX_TEMP_DIR_BYTES = 31
"""Limit that HAProxy's sockets set: the path FOLDER/NODE/a.sock, with a NODE of 56 digits, may have 95 bytes.

With it, Ray's sockets are below the Unix limit of 107 bytes.
"""
DRIVERS = "-m batch."
"""Part of the command of every job: python -m batch.reprocess, batch.classify, batch.embed, batch.filters."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Addresses and process id of a running cluster."""

    pid: int
    host: str
    http_port: int
    gcs_address: str
    dashboard_url: str
    temp_dir: str
    places: dict[str, str] | None = None  # of a cluster that an earlier version started

    @property
    def endpoint(self) -> str:
        """URL of the HTTP API, with the host on which it listens."""
        return url_of(self.host, self.http_port)

    @property
    def logs(self) -> str:
        return f"{self.temp_dir}/{RAY_FOLDER}/session_latest/logs"

    @property
    def reachable_url(self) -> str:
        """URL of the HTTP API for this machine, also if it listens on all interfaces."""
        return local_url(self.host, self.http_port)


def read_state(settings: Settings) -> ClusterState | None:
    """Return the running cluster of this home, or None. Raises StorageUnreachable if its state cannot be read."""
    try:
        state = ClusterState(**json.loads(_state_file(settings).read_text()))
        return state if is_running(state) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None
    except OSError as error:
        raise unusable_home(settings, error) from error


def is_running(state: ClusterState) -> bool:
    """Return whether the head is alive, by its command line: its creation time changes if the system's clock is set."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return _is_ray(psutil.Process(state.pid), state.temp_dir)
    return False


def has_cluster(settings: Settings) -> bool:
    """Return whether commands use a cluster: one of this home, or that of RESIGHT_ADDRESS."""
    return bool(settings.address) or read_state(settings) is not None


def start(
    settings: Settings, ports: Ports, host: str, object_store_mib: int, starting: Callable[[], object] = lambda: None
) -> ClusterState:
    """Start a Ray head; call `starting` after the checks. Raises ClusterError, with the end of its log, if it fails."""
    log_path = settings.logs_path / "ray.log"
    with start_lock():
        if running := read_state(settings):  # another 'resight up' started it in the meantime
            return running
        if endpoint := served_at(settings):
            raise ClusterError(
                f"'resight serve' serves {settings.home_path} at {endpoint}: stop it with Ctrl-C or SIGTERM"
            )
        require_free(host, ports.http, "up")
        _make_home(settings)
        temp_dir = _make_temp_dir(settings)
        gcs, dashboard = preferred_or_free(ports.ray), preferred_or_free(ports.dashboard)
        inner = inner_ports()
        starting()
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                head_command(gcs, dashboard, inner, temp_dir, object_store_mib),
                env=head_environment(settings, inner, temp_dir),
                cwd=temp_dir / START_FOLDER,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        state = ClusterState(
            pid=process.pid,
            host=host,
            http_port=ports.http,
            gcs_address=f"127.0.0.1:{gcs}",
            dashboard_url=f"http://127.0.0.1:{dashboard}",
            temp_dir=str(temp_dir),
            places=places(settings),
        )
        try:
            file = _state_file(settings)
            Folder(str(file.parent)).write(file.name, json.dumps(asdict(state), indent=1).encode())
            _wait_until_up(process, state, settings, log_path)
        except BaseException:
            stop(settings)
            raise
    return state


def stop(settings: Settings) -> bool:
    """Stop the cluster of this home only; return False if none is running.

    Runs are stopped first, so that they can commit their results. Then Ray gets GRACE_S instead of the 30 s that it
    would wait for unresponsive workers. Requests in flight and loads of models are cut off.
    """
    state = read_state(settings)
    roots = [psutil.Process(state.pid)] if state else _orphans(settings)
    _end(filter(_is_driver, _descendants(roots)), psutil.Process.terminate, RUN_STOP_S)
    family = [*_descendants(roots), *roots]
    _end(roots, psutil.Process.terminate, 0)
    _, alive = psutil.wait_procs(family, timeout=GRACE_S)
    _end(alive, psutil.Process.kill, 10)
    _end(_orphans(settings), psutil.Process.kill, 10)  # HAProxy may have been started again
    _state_file(settings).unlink(missing_ok=True)
    if roots:
        from serve.rollout.proofs import forget_loads  # here: most commands only read the state

        forget_loads(Folder(str(settings.home_path / "proofs")))
    return bool(roots)


def _descendants(roots: Iterable[psutil.Process]) -> set[psutil.Process]:
    return {child for root in roots for child in root.children(recursive=True)}


def _orphans(settings: Settings) -> list[psutil.Process]:
    """Return processes of this home's Ray that remain without a parent, found by its temporary folder.

    Another command line may contain the folder too, such as a pager on one of its logs, so the program is checked.
    """
    temp_dir = str(folder_of(settings))
    return [process for process in psutil.process_iter() if _is_ray(process, temp_dir)]


def _is_ray(process: psutil.Process, temp_dir: str) -> bool:
    """Return whether another process is a program of Ray with the folder in its command line."""
    words = _command(process)
    program = [word for word in words[:3] if temp_dir not in word]
    in_folder = any(temp_dir in word for word in words) and process.pid != os.getpid()
    return in_folder and any("ray" in word for word in program)


def _is_driver(process: psutil.Process) -> bool:
    return DRIVERS in " ".join(_command(process))


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _end(processes: Iterable[psutil.Process], signal: Callable[[psutil.Process], None], timeout_s: float) -> None:
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            signal(process)
    psutil.wait_procs(processes, timeout=timeout_s)


def client_environment(settings: Settings) -> dict[str, str]:
    """Return the variables with which Ray commands connect to the cluster; `resight env` prints them.

    The cluster is that of this home, or else the one at RESIGHT_ADDRESS. Raises ClusterError if there is neither.
    """
    stores = {"RESIGHT_MODELS": settings.models_url, "RESIGHT_TABLES": settings.tables_url}
    state = read_state(settings)
    if state is not None:
        return stores | {
            "RESIGHT_HOME": str(settings.home_path),
            "RAY_ADDRESS": state.gcs_address,
            "RAY_API_SERVER_ADDRESS": state.dashboard_url,
            **authentication(settings),
        }
    if settings.address:
        mode = os.environ.get("RAY_AUTH_MODE", "token")
        return stores | {"RAY_API_SERVER_ADDRESS": settings.address, "RAY_AUTH_MODE": mode}
    raise ClusterError(
        f"no cluster is running for {settings.home_path}; start one with 'resight up', or set "
        "RESIGHT_ADDRESS to the Ray dashboard of another"
    )


def join(settings: Settings) -> None:
    """Make this process a client of the cluster. Raises ClusterError if there is none."""
    os.environ.update(client_environment(settings))


def _wait_until_up(process: subprocess.Popen[bytes], state: ClusterState, settings: Settings, log_path: Path) -> None:
    """Wait until the dashboard accepts this cluster's token; that of another cluster would reject it."""
    import httpx2  # here: most commands only read the state

    headers = {"Authorization": f"Bearer {token_path(settings).read_text()}"}
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ClusterError(f"Ray ended during its start:\n{_tail(log_path)}")
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"{state.dashboard_url}/api/version", headers=headers, timeout=2).status_code == 200:
                return
        time.sleep(0.3)
    raise ClusterError(f"Ray did not start within {START_TIMEOUT_S} s:\n{_tail(log_path)}")


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:]


def _state_file(settings: Settings) -> Path:
    return settings.home_path / "cluster.json"


def _make_home(settings: Settings) -> None:
    """Create the folders to which a cluster writes. Raises StorageUnreachable, also for a full disk."""
    for folder in (settings.home_path, settings.logs_path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(FIRST_LOG_BYTES))
        except OSError as error:
            raise unusable_home(settings, error) from error


def folder_of(settings: Settings) -> Path:
    """Return the path of the private folder of this home's cluster, which might not exist."""
    return private_path() / hashlib.sha256(str(settings.home_path).encode()).hexdigest()[:6]


def _make_temp_dir(settings: Settings) -> Path:
    """Create `folder_of`. Raises ClusterError if another user can change it, or if its path is too long."""
    private_folder()
    temp_dir = folder_of(settings)
    if len(os.fsencode(temp_dir)) > MAX_TEMP_DIR_BYTES:
        raise ClusterError(
            f"{temp_dir} is over {MAX_TEMP_DIR_BYTES} bytes, too long for the Unix sockets below it: "
            "set TMPDIR to a folder with a shorter path"
        )
    for folder in (temp_dir, temp_dir / START_FOLDER):
        folder.mkdir(mode=0o700, exist_ok=True)
    return temp_dir
