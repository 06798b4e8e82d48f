"""One Ray head on this machine: started, found again and stopped by `resight`, and only that one.

start(ports) -> ClusterState, kept in HOME/cluster.json; stop() ends exactly the processes it started.
Ray runs in its own session with its own temporary folder and ports, so that several clusters of one
machine (a demo and a test run, say) never touch each other; `ray stop` would end them all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2
import psutil

from model_store.errors import ClusterError, StorageUnreachable
from serve.ports import Ports, inner_ports, is_free, preferred_or_free, start_lock
from serve.private_folder import private_folder, private_path
from serve.ray_head import (
    RAY_FOLDER,
    authentication,
    head_command,
    head_environment,
    token_path,
)
from serve.settings import Settings

START_TIMEOUT_S = 120
RUN_STOP_S = 30
GRACE_S = 5
START_FOLDER = "cwd"
"""Ray starts here. Every Ray process has its start folder on its module path, so it must stay empty and private."""
MAX_TEMP_DIR_BYTES = 31
"""A socket of HAProxy is called FOLDER/NODE/a.sock, with 56 digits of a node, and 95 bytes are its limit; sockets of
Ray are shorter than the 107 bytes that Unix allows.
"""
DRIVERS = "-m batch."
"""In the command of each job of ours: python -m batch.reprocess, batch.classify, batch.filters."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What it takes to find, use and stop the cluster."""

    pid: int
    host: str
    http_port: int
    gcs_address: str
    dashboard_url: str
    temp_dir: str

    @property
    def endpoint(self) -> str:
        return f"http://{_bracketed(self.host)}:{self.http_port}"

    @property
    def logs(self) -> str:
        return f"{self.temp_dir}/{RAY_FOLDER}/session_latest/logs"

    @property
    def reachable_url(self) -> str:
        """The endpoint as seen from this machine, also when it listens on all interfaces."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{_bracketed(host)}:{self.http_port}"


def read_state(settings: Settings) -> ClusterState | None:
    """The running cluster of this home, or None; a state file of a dead one is ignored. Raises StorageUnreachable."""
    state_file = _state_file(settings)
    try:
        state = ClusterState(**json.loads(state_file.read_text()))
        # known by its command line: its time of creation changes when the system's clock is set
        process = psutil.Process(state.pid)
        return state if _has(process, state.temp_dir) and _is_ray(process, state.temp_dir) else None
    except (FileNotFoundError, ValueError, TypeError, psutil.NoSuchProcess):
        return None
    except OSError as error:
        raise _unusable(settings, error) from error


def start(settings: Settings, ports: Ports, host: str, object_store_mib: int) -> ClusterState:
    """Start a Ray head. Raises ClusterError with the end of its log when it does not come up."""
    if not is_free(host, ports.http):
        raise ClusterError(
            f"{host}:{ports.http} is taken; stop what listens there or choose another with "
            "'resight up --port'"
        )
    _make_home(settings)
    temp_dir = _make_temp_dir(settings)
    log_path = settings.logs_path / "ray.log"
    with start_lock():
        if running := read_state(settings):  # started by another 'resight up' while we waited
            return running
        gcs, dashboard = preferred_or_free(ports.ray), preferred_or_free(ports.dashboard)
        inner = inner_ports()
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
        )
        _state_file(settings).write_text(json.dumps(asdict(state), indent=1))
        try:
            _wait_until_up(process, state, settings, log_path)
        except BaseException:
            stop(settings)
            raise
    return state


def stop(settings: Settings) -> bool:
    """End the cluster of this home, and nothing else. False when none runs.

    Runs are asked first, so that what they have seen is committed; then Ray, which would wait 30 s
    for workers that do not listen, is given GRACE_S. Requests in flight are cut.
    """
    state = read_state(settings)
    roots = [psutil.Process(state.pid)] if state else _orphans(settings)
    below = [child for root in roots for child in root.children(recursive=True)]
    _end(filter(_is_driver, below), psutil.Process.terminate, RUN_STOP_S)
    family = [*{child for root in roots for child in root.children(recursive=True)}, *roots]
    _end(roots, psutil.Process.terminate, 0)
    _, alive = psutil.wait_procs(family, timeout=GRACE_S)
    _end(alive, psutil.Process.kill, 10)
    _end(_orphans(settings), psutil.Process.kill, 10)  # HAProxy, started again meanwhile
    _state_file(settings).unlink(missing_ok=True)
    return bool(roots)


def _orphans(settings: Settings) -> list[psutil.Process]:
    """Processes of this home's Ray without their parent: they name its temporary folder.

    So may somebody's pager on one of its logs, hence the look at what is executed.
    """
    temp_dir = str(folder_of(settings))
    return [p for p in psutil.process_iter() if _has(p, temp_dir) and _is_ray(p, temp_dir)]


def _is_ray(process: psutil.Process, temp_dir: str) -> bool:
    try:
        program = [part for part in process.cmdline()[:3] if temp_dir not in part]
    except psutil.Error:
        return False
    return any("ray" in part for part in program)


def _is_driver(process: psutil.Process) -> bool:
    try:
        return DRIVERS in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _has(process: psutil.Process, words: str) -> bool:
    try:
        return any(words in part for part in process.cmdline()) and process.pid != os.getpid()
    except psutil.Error:
        return False


def _end(
    processes: Iterable[psutil.Process], how: Callable[[psutil.Process], None], timeout_s: float
) -> None:
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            how(process)
    psutil.wait_procs(processes, timeout=timeout_s)


def client_environment(settings: Settings) -> dict[str, str]:
    """Variables with which any Ray command speaks to the cluster; `resight env` prints them.

    The cluster of this home, else the one RESIGHT_ADDRESS names. Raises ClusterError without either.
    """
    places = {"RESIGHT_MODELS": settings.models_url, "RESIGHT_TABLES": settings.tables_url}
    state = read_state(settings)
    if state is not None:
        return places | {
            "RESIGHT_HOME": str(settings.home_path),
            "RAY_ADDRESS": state.gcs_address,
            "RAY_API_SERVER_ADDRESS": state.dashboard_url,
            **authentication(settings),
        }
    if settings.address:
        mode = os.environ.get("RAY_AUTH_MODE", "token")
        return places | {"RAY_API_SERVER_ADDRESS": settings.address, "RAY_AUTH_MODE": mode}
    raise ClusterError(
        f"no cluster runs for {settings.home_path}; start one with 'resight up', or set "
        "RESIGHT_ADDRESS to the Ray dashboard of another"
    )


def join(settings: Settings) -> None:
    """Make this process a client of the cluster. Raises ClusterError when there is none."""
    os.environ.update(client_environment(settings))


def _wait_until_up(
    process: subprocess.Popen[bytes], state: ClusterState, settings: Settings, log_path: Path
) -> None:
    """Until the dashboard answers to our token: another cluster's would refuse it."""
    headers = {"Authorization": f"Bearer {token_path(settings).read_text()}"}
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ClusterError(f"Ray ended at once:\n{_tail(log_path)}")
        with contextlib.suppress(httpx2.HTTPError):
            url = f"{state.dashboard_url}/api/version"
            if httpx2.get(url, headers=headers, timeout=2).status_code == 200:
                return
        time.sleep(0.3)
    raise ClusterError(f"Ray did not come up in {START_TIMEOUT_S} s:\n{_tail(log_path)}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:]


def _state_file(settings: Settings) -> Path:
    return settings.home_path / "cluster.json"


def _make_home(settings: Settings) -> None:
    """Create the folders that a cluster writes to. Raises StorageUnreachable."""
    for folder in (settings.home_path, settings.logs_path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise _unusable(settings, error) from error


def _unusable(settings: Settings, error: OSError) -> StorageUnreachable:
    return StorageUnreachable(
        f"cannot use {settings.home_path} as the home: {error}; set RESIGHT_HOME to a folder that you can write to"
    )


def folder_of(settings: Settings) -> Path:
    """Return the private folder of this home's cluster; it may not exist."""
    digest = hashlib.sha256(str(settings.home_path).encode()).hexdigest()[:6]
    return private_path() / digest


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
