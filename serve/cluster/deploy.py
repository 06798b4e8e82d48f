"""Deploy serve/app.yaml to a running cluster, declaratively: an unchanged application keeps running.

app.yaml + settings -> Serve's REST API -> wait until every application runs
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import httpx2
import tenacity
import yaml
from pydantic import ValidationError

from model_store.errors import ClusterError
from model_store.frozen import wrong_fields
from serve.cluster.head import ClusterState, is_running
from serve.cluster.ports import LOOPBACK
from serve.inference.os_priority import deprioritise_ray_processes
from serve.settings import APP, DetectArgs, Settings

DEPLOY_TIMEOUT_S = 180
PROGRESS_S = 15


def serve_config(settings: Settings, host: str, port: int) -> dict[str, Any]:
    """Return serve/app.yaml, or the file of RESIGHT_APP, with this host, port and model store.

    Beyond loopback every application requires a token; on loopback only if its arguments set `require_token`. Raises
    ClusterError if the file is missing or invalid.
    """
    source = Path(settings.app) if settings.app else resources.files("serve").joinpath("app.yaml")
    try:
        config: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
        config["http_options"].update(host=host, port=port)
        if not isinstance(config["applications"], list):
            raise TypeError("'applications' is not a list")
        for application in config["applications"]:
            args = {"require_token": False} | (application.get("args") or {})
            args["require_token"] = args["require_token"] or host not in LOOPBACK
            application["args"] = args | {"models": settings.models_url}
    except (OSError, UnicodeError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ClusterError(f"{source} is not a Serve config like serve/app.yaml: {error!r}"[:1000]) from error
    return config


def detect_args(settings: Settings, host: str = LOOPBACK[0]) -> DetectArgs:
    """Return the arguments of `detect` in the file of applications. Raises ClusterError if missing or invalid."""
    applications = serve_config(settings, host, 8000)["applications"]
    found = next((one["args"] for one in applications if one.get("name") == APP), None)
    if found is None:
        raise ClusterError(f"the application file has no application '{APP}': see serve/app.yaml")
    try:
        return DetectArgs.model_validate(found)
    except ValidationError as error:
        wrong = wrong_fields(error, DetectArgs, "args")
        raise ClusterError(f"invalid args of the application '{APP}': {wrong}") from error


def deploy(settings: Settings, state: ClusterState, waiting: Callable[[str], object] = lambda words: None) -> None:
    """Deploy the applications and wait until they run.

    Raises ClusterError, with Serve's message, if one fails, or as soon as Ray has ended.

    Calls `waiting` every PROGRESS_S with a line on what does not run yet. A dashboard that does not answer, as on a
    busy machine, gets the request again for DEPLOY_TIMEOUT_S.
    """
    config = serve_config(settings, state.host, state.http_port)
    try:
        answer = _put(f"{state.dashboard_url}/api/serve/applications/", config, state)
    except httpx2.TransportError as error:
        raise _no_answer(state.dashboard_url, error) from error
    if answer.status_code >= 400:
        raise ClusterError(f"Ray Serve rejected the applications: {answer.text[:2000]}")
    names = [application["name"] for application in config["applications"]]
    began_s = reported_s = time.monotonic()
    deadline = began_s + DEPLOY_TIMEOUT_S
    status: dict[str, Any] = {}
    while time.monotonic() < deadline:
        _require_running(state)
        with contextlib.suppress(ClusterError):
            status = application_status(state.dashboard_url)
        states = {name: status.get(name, {}).get("status", "NOT_STARTED") for name in names}
        if all(value == "RUNNING" for value in states.values()) and _answers(state):
            deprioritise_ray_processes(state.pid)
            return
        failed = [name for name, value in states.items() if value == "DEPLOY_FAILED"]
        if failed:
            raise ClusterError(f"{failed[0]}: {status[failed[0]].get('message', '')[:3000]}")
        if (now_s := time.monotonic()) - reported_s >= PROGRESS_S:
            reported_s = now_s
            waiting(f"after {now_s - began_s:.0f} s, not ready yet: {_missing(states)}")
        time.sleep(0.3)
    raise ClusterError(f"the applications did not start within {DEPLOY_TIMEOUT_S} s: {status}"[:3000])


def _require_running(state: ClusterState) -> None:
    if not is_running(state):
        raise ClusterError(f"Ray ended while its applications started: see its logs in {state.logs}, then try again")


def _missing(states: Mapping[str, str]) -> str:
    words = [f"{name} ({value.lower()})" for name, value in states.items() if value != "RUNNING"]
    return ", ".join(words) or "the HTTP proxy"


def application_status(dashboard_url: str) -> dict[str, Any]:
    """Return Serve's status of each application by name. Raises ClusterError if the dashboard does not answer."""
    url = f"{dashboard_url}/api/serve/applications/"
    try:
        answer = httpx2.get(url, headers=_headers(), timeout=30)
        answer.raise_for_status()
    except httpx2.HTTPError as error:
        raise _no_answer(dashboard_url, error) from error
    return dict(answer.json().get("applications", {}))


def require_dashboard(dashboard_url: str) -> None:
    """Raise ClusterError if nothing answers there: Ray's client requires its token first, and reports only that."""
    try:
        httpx2.get(f"{dashboard_url}/api/version", timeout=30)
    except httpx2.HTTPError as error:
        raise _no_answer(dashboard_url, error) from error


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(httpx2.TransportError),
    stop=tenacity.stop_after_delay(DEPLOY_TIMEOUT_S),
    wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)
def _put(url: str, config: dict[str, Any], state: ClusterState) -> httpx2.Response:
    """Send the applications; sending them again changes nothing."""
    _require_running(state)
    return httpx2.put(url, json=config, headers=_headers(), timeout=60)


def _no_answer(dashboard_url: str, error: httpx2.HTTPError) -> ClusterError:
    return ClusterError(
        f"Ray's dashboard at {dashboard_url} does not answer: {error}; if the machine is busy, try again"
    )


def _answers(state: ClusterState) -> bool:
    try:
        return httpx2.get(f"{state.reachable_url}/healthz", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def _headers() -> dict[str, str]:
    """Return the header with Ray's token, read from the places where Ray's commands look for it."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if token is None and path.exists():
        token = path.read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}
