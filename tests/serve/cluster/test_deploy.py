"""What is deployed: the application file with this machine's host, port and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
import tenacity
import yaml

from model_store.errors import ClusterError
from serve.cluster import deploy
from serve.cluster.deploy import serve_config
from serve.cluster.head import ClusterState
from serve.settings import DetectArgs, Settings


def config_of(text: str, host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    path = tmp_path / "app.yaml"
    path.write_text(text)
    monkeypatch.setenv("RESIGHT_APP", str(path))
    monkeypatch.setenv("RESIGHT_MODELS", "s3://deer/models")
    return serve_config(Settings(), host, 8123)


def with_args(args: Any) -> str:
    application = {"name": "detect", "import_path": "serve.app:build", "args": args}
    return yaml.safe_dump({"http_options": {}, "applications": [application]})


@pytest.mark.parametrize(("host", "required"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_the_installed_file_gets_this_host_port_and_store(
    host: str, required: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_MODELS", "s3://deer/models")
    config = serve_config(Settings(), host, 8123)
    assert (config["http_options"]["host"], config["http_options"]["port"]) == (host, 8123)
    for application in config["applications"]:
        args = DetectArgs.model_validate(application["args"])
        assert (args.models, args.require_token) == ("s3://deer/models", required)


@pytest.mark.parametrize(
    ("asked", "host", "required"),
    [(True, "127.0.0.1", True), (False, "::1", False), (False, "0.0.0.0", True), (None, "192.168.1.7", True)],
)
def test_a_file_may_require_tokens_on_loopback_and_cannot_do_without_beyond_it(
    asked: bool | None, host: str, required: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = with_args({"require_token": asked, "workers": 3})
    (application,) = config_of(text, host, monkeypatch, tmp_path)["applications"]
    assert application["args"] == {"models": "s3://deer/models", "require_token": required, "workers": 3}


@pytest.mark.parametrize("application", ["{name: detect}", "{name: detect, args: }"])
def test_an_application_without_arguments_gets_ours(
    application: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = f"http_options: {{}}\napplications:\n- {application}\n"
    config = config_of(text, "0.0.0.0", monkeypatch, tmp_path)
    ours = {"models": "s3://deer/models", "require_token": True}
    assert config["applications"] == [{"name": "detect", "args": ours}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "http_options: {}",
        "{http_options: {}, applications: {}}",
        "{http_options: {}, applications: [detect]}",
        "{http_options: {}, applications: [{args: 7}]}",
        "{http_options: [], applications: []}",
    ],
)
def test_a_file_that_is_something_else_is_refused_by_name(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=r"app\.yaml is not a Serve config"):
        config_of(text, "127.0.0.1", monkeypatch, tmp_path)


STATE = ClusterState(1, "127.0.0.1", 1, "127.0.0.1:1", "http://127.0.0.1:2", "/tmp")
RUNNING = {"applications": {name: {"status": "RUNNING"} for name in ("detect", "runs", "pages")}}


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A dashboard that drops the first two requests of each method; the methods that it got."""
    asked: list[str] = []

    def answer(method: str, url: str) -> httpx2.Response:
        asked.append(method)
        if asked.count(method) < 3:
            raise (httpx2.ReadTimeout("timed out") if method == "put" else httpx2.RemoteProtocolError(url))
        return httpx2.Response(200, json=RUNNING, request=httpx2.Request(method, url))

    monkeypatch.setattr(deploy, "is_running", lambda _: True)
    monkeypatch.setattr(httpx2, "put", lambda url, **_: answer("put", url))
    monkeypatch.setattr(httpx2, "get", lambda url, **_: answer("get", url))
    monkeypatch.setattr(deploy, "_answers", lambda _: True)
    monkeypatch.setattr(deploy, "deprioritise_ray_processes", lambda _: None)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return asked


def test_a_busy_dashboard_is_asked_again(dashboard: list[str]) -> None:
    deploy.deploy(Settings(), STATE)
    assert dashboard == ["put"] * 3 + ["get"] * 3


def test_what_is_awaited_is_reported_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, lines = [0.0], list[str]()

    def status(_: str) -> dict[str, Any]:
        now_s[0] += 6
        names = ("detect", "runs", "pages")
        return {name: {"status": "RUNNING" if now_s[0] > 15 or name == "runs" else "DEPLOYING"} for name in names}

    monkeypatch.setattr(deploy, "is_running", lambda _: True)
    monkeypatch.setattr(deploy, "_put", lambda *_: httpx2.Response(200))
    monkeypatch.setattr(deploy, "application_status", status)
    monkeypatch.setattr(deploy, "_answers", lambda _: now_s[0] > 30)
    monkeypatch.setattr(deploy, "deprioritise_ray_processes", lambda _: None)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    monkeypatch.setattr(deploy, "PROGRESS_S", 12)
    deploy.deploy(Settings(), STATE, lines.append)
    assert lines == [
        "after 12 s, not ready yet: detect (deploying), pages (deploying)",
        "after 24 s, not ready yet: the HTTP proxy",
    ]


@pytest.mark.parametrize("requests", [0, 1, 3, 4])
def test_the_end_of_ray_ends_the_wait(dashboard: list[str], monkeypatch: pytest.MonkeyPatch, requests: int) -> None:
    """Before, between and after the requests that send the applications, and while they start."""
    monkeypatch.setattr(deploy, "is_running", lambda _: len(dashboard) < requests)
    with pytest.raises(ClusterError, match="Ray ended while its applications started: see its logs in /tmp/ray/"):
        deploy.deploy(Settings(), STATE)
    assert len(dashboard) == requests


def test_a_dashboard_that_never_answers_is_an_error_in_words(
    dashboard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put: Any = deploy._put
    monkeypatch.setattr(put.retry, "stop", tenacity.stop_after_attempt(2))
    with pytest.raises(ClusterError, match="dashboard at http://127.0.0.1:2 does not answer: timed out"):
        deploy.deploy(Settings(), STATE)
