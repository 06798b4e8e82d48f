"""resight up, down, status and env where no cluster runs, and none is started."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fsspec.implementations.local import LocalFileSystem

from cli import cluster
from model_store.errors import ClusterError
from serve.cluster.head import ClusterState, places
from serve.cluster.ports import network_url, preferred_or_free
from serve.embedded.home_lock import home_lock
from serve.models.pools import NO_MODEL, PENDING
from serve.settings import Settings
from tests.cli.conftest import Resight
from tests.fixtures_local import MODELS, jpeg, write_files


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `up` would have started, which must be nothing."""
    calls: list[Any] = []
    monkeypatch.setattr("cli.cluster.start", lambda *args: calls.append(args))
    monkeypatch.setattr("cli.cluster.deploy", lambda *args: calls.append(args))
    return calls


@pytest.mark.parametrize("host", ["0.0.0.0", "camera-server", ""])
def test_up_beyond_loopback_without_a_token_is_refused_before_anything_starts(
    resight: Resight, started: list[Any], home: Path, host: str
) -> None:
    assert "needs a token: export RESIGHT_TOKEN" in resight("up", "--host", host).refused(2)
    assert started == []
    assert not home.exists()


@pytest.mark.parametrize("concurrent", [False, True], ids=["before", "at the same time"])
@pytest.mark.parametrize(
    ("words", "kept", "refused"),
    [
        ([], {}, None),
        (["--port", "8100"], None, None),  # started by an earlier version
        (["--port", "8100"], {}, None),
        (["--port", "8000"], {}, ""),
        (["--host", "::1"], {}, ""),
        ([], {"RESIGHT_MODELS": "s3://old"}, " with RESIGHT_MODELS=s3://old"),
        ([], {"RESIGHT_TOKENS": "/t", "RESIGHT_TABLES": "/old"}, " with RESIGHT_TABLES=/old with RESIGHT_TOKENS=/t"),
    ],
)
def test_up_moves_no_running_cluster(
    resight: Resight,
    started: list[Any],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    kept: dict[str, str] | None,
    refused: str | None,
    concurrent: bool,
) -> None:
    at_start = None if kept is None else places(Settings()) | kept
    state = ClusterState(1, "127.0.0.1", 8100, "127.0.0.1:1", "http://127.0.0.1:1", "/tmp", at_start)
    asked: list[str] = []
    monkeypatch.setattr("cli.cluster.read_state", lambda _: None if concurrent else state)
    monkeypatch.setattr("cli.cluster.start", lambda *_: state)  # of another 'resight up'
    monkeypatch.setattr("cli.cluster.join", lambda _: None)
    monkeypatch.setattr("serve.client.Client.reload", lambda _: asked.append("reload"))
    monkeypatch.setattr("cli.cluster._ready", lambda _: (asked.append("ready") or True, "yes: motion@1", ""))
    done = resight("up", *words)
    if refused is not None:
        assert f"a cluster of {home} is up at http://127.0.0.1:8100{refused}; to move" in done.refused(2)
        assert started == []
    else:
        assert "http://127.0.0.1:8100/docs" in done.ok()
        assert len(started) == 1
        assert asked == ["reload", "ready"]  # a model that was repaired has been tried again


@pytest.mark.parametrize("own", [True, False])
def test_up_that_fails_stops_only_the_cluster_that_it_started(
    resight: Resight, home: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """Another 'resight up' may start it between the look at the state and the lock."""
    state = ClusterState(1, "127.0.0.1", 8000, "127.0.0.1:1", "http://127.0.0.1:1", "/tmp")
    stopped: list[Settings] = []

    def start(*args: Any) -> ClusterState:
        if own:
            args[-1]()
        return state

    monkeypatch.setattr("cli.cluster.start", start)
    monkeypatch.setattr("cli.cluster.join", lambda _: None)
    monkeypatch.setattr("cli.cluster.deploy", no_answer)
    monkeypatch.setattr("cli.cluster.stop", stopped.append)
    assert resight("up").code == 8
    assert len(stopped) == own


def test_status_without_a_cluster_says_where_everything_is_and_ends_with_1(resight: Resight, home: Path) -> None:
    done = resight("status", "--format", "json")
    assert done.code == 1
    assert json.loads(done.out) == {
        "home": str(home),
        "models": str(home / "models"),
        "tables": str(home / "tables"),
        "uploads": str(home / "uploads"),
        "snips": str(home / "snips"),
        "logs": str(home / "logs"),
        "tokens": "none were made",
        "policy": f"{home / 'policy.toml'} (not there: the defaults hold)",
        "rollout": "none",
        "archives": {},
        "cluster": "down",
    }
    assert resight("status").out.splitlines()[-1] == "cluster   down"
    archive = write_files(home.parent / "archive", {"north/1.jpg": jpeg()})
    for words, archives in ([archive], {str(archive): 1}), (["--retire", archive], {}):
        resight("ingest", *words).ok()
        assert json.loads(resight("status", "--format", "json").out)["archives"] == archives


def test_status_with_unmounted_tables_shows_the_rest_and_ends_with_7(
    resight: Resight, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_TABLES", str(tmp_path / "disk" / "tables"))
    done = resight("status", "--format", "json")
    facts = json.loads(done.out)
    assert (done.code, facts["home"], facts["archives"]) == (7, str(home), None)
    assert f"{tmp_path / 'disk'} does not exist; is it mounted?" in done.err
    monkeypatch.setenv("RESIGHT_ADDRESS", "http://127.0.0.1:1")  # its nodes may have the folder
    monkeypatch.setattr("batch.jobs.control.all_jobs", no_answer)
    assert resight("runs", "list").code == 0


def no_answer(*_: object) -> None:
    raise ClusterError("refused")


@pytest.mark.parametrize("pulled", [True, False])
def test_up_names_the_next_step_where_no_model_is_served(
    resight: Resight, started: list[Any], home: Path, monkeypatch: pytest.MonkeyPatch, pulled: bool
) -> None:
    state = ClusterState(1, "127.0.0.1", 8000, "127.0.0.1:1", "http://127.0.0.1:1", "/tmp")
    monkeypatch.setattr("cli.cluster.read_state", lambda _: state)
    monkeypatch.setattr("cli.cluster.join", lambda _: None)
    monkeypatch.setattr("cli.cluster._ready", lambda _: (False, f"no: {NO_MODEL}: serve one", ""))
    if pulled:
        shutil.copytree(MODELS / "motion", home / "models" / "motion")
    done = resight("up")
    done.ok()
    step = "models promote motion@1" if pulled else "models pull .*ssdlite-coco"
    assert re.search(f"^next: resight {step}$", done.err, re.MULTILINE)


def test_an_invalid_policy_is_reported_and_stops_neither_status_nor_up(
    resight: Resight, started: list[Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(home, {"policy.toml": b"[gates"})
    words = f"invalid policy; correct {home / 'policy.toml'}: Expected ']'"
    assert json.loads(resight("status", "--format", "json").out)["policy"].startswith(words)
    state = ClusterState(1, "127.0.0.1", 8000, "127.0.0.1:1", "http://127.0.0.1:1", "/tmp")
    monkeypatch.setattr("cli.cluster.read_state", lambda _: state)
    monkeypatch.setattr("cli.cluster.join", lambda _: None)
    monkeypatch.setattr("cli.cluster._ready", lambda _: (True, "yes: motion@1", ""))
    done = resight("up")
    assert [line for line in done.err.splitlines() if line.startswith(words)]
    assert "ready" in done.ok()


@pytest.mark.parametrize(("host", "network"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_up_prints_addresses_that_a_browser_can_open(
    resight: Resight, started: list[Any], monkeypatch: pytest.MonkeyPatch, host: str, network: bool
) -> None:
    state = ClusterState(1, host, 8000, "127.0.0.1:1", "http://127.0.0.1:1", "/tmp")
    monkeypatch.setenv("RESIGHT_TOKEN", "secret")
    monkeypatch.setattr("cli.cluster.read_state", lambda _: state)
    monkeypatch.setattr("cli.cluster.join", lambda _: None)
    monkeypatch.setattr("cli.cluster._ready", lambda _: (True, "yes: motion@1", ""))
    facts = json.loads(resight("up", "--format", "json").ok())
    assert (facts["page"], facts["endpoint"]) == ("http://127.0.0.1:8000/ui/", "http://127.0.0.1:8000")
    assert facts.get("network") == (f"{network_url(host, 8000)}/ui/" if network else None)


def test_places_follow_their_variables(resight: Resight, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_MODELS", "s3://bucket/models/")
    monkeypatch.setenv("RESIGHT_TABLES", "relative")
    facts = json.loads(resight("status", "--format", "json").out)
    assert facts["models"] == "s3://bucket/models"
    assert facts["tables"] == str(Path("relative").resolve())


@pytest.mark.parametrize("state", ["", "[]", json.dumps({"pid": 1})])
def test_a_state_file_that_means_nothing_is_no_cluster(resight: Resight, home: Path, state: str) -> None:
    write_files(home, {"cluster.json": state.encode()})
    done = resight("status", "--format", "json")
    assert (done.code, json.loads(done.out)["cluster"]) == (1, "down")


def test_the_state_of_a_process_that_is_another_now_is_no_cluster(resight: Resight, home: Path) -> None:
    state = {
        "pid": 1,
        "host": "127.0.0.1",
        "http_port": 1,
        "gcs_address": "127.0.0.1:1",
        "dashboard_url": "http://127.0.0.1:1",
        "temp_dir": "/tmp",
    }
    write_files(home, {"cluster.json": json.dumps(state).encode()})
    assert resight("status").code == 1
    assert f"nothing was running for the home {Settings().home_path}" in resight("down").err


def test_down_without_a_cluster_is_fine(resight: Resight) -> None:
    done = resight("down")
    assert (done.code, done.out) == (0, "")
    assert "nothing was running" in done.err


def test_down_names_the_runs_that_it_ends(resight: Resight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.cluster.read_state", lambda _: SimpleNamespace(dashboard_url="http://127.0.0.1:1"))
    monkeypatch.setattr("cli.cluster.stop", lambda _: True)
    monkeypatch.setattr("cli.cluster.require_dashboard", lambda _: None)
    monkeypatch.setattr("cli.cluster.jobs_of", lambda _: SimpleNamespace(running=lambda: {"r2", "r1"}))
    first, second, last = resight("down").err.splitlines()
    assert (first[:17], second[:17], last) == ("run r1 was ended;", "run r2 was ended;", "stopped")
    monkeypatch.setattr("cli.cluster.jobs_of", no_answer)
    assert resight("down").err == "stopped\n"
    monkeypatch.setattr("cli.cluster.require_dashboard", no_answer)
    monkeypatch.setattr("cli.cluster.jobs_of", lambda _: pytest.fail("Ray's client would wait"))
    assert resight("down").err == "stopped\n"


def test_up_reads_the_model_store_before_it_starts_ray(
    resight: Resight, started: list[Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("denied")

    monkeypatch.setattr(LocalFileSystem, "ls", refuse)
    assert f"cannot list {home / 'models'}: denied; check owner" in resight("up").refused(7)
    assert started == []


def test_env_without_a_cluster_prints_nothing_that_a_shell_would_run(resight: Resight) -> None:
    assert "start one with 'resight up'" in resight("env").refused(8)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(200, json={"loaded": ["motion@1"]}), (True, "yes: motion@1", "")),
        (
            httpx2.Response(200, json={"loaded": ["a@1"], "failures": {"b": "b: damaged"}}),
            (True, "yes: a@1; not b: damaged", "b: damaged"),
        ),
        (
            httpx2.Response(200, json={"loaded": ["a@1"], "failures": {"b:x": f"b@1: {PENDING}"}}),
            (True, f"yes: a@1; not b:x: b@1: {PENDING}", ""),
        ),
        (httpx2.Response(503, json={"detail": "b: damaged"}), (False, "no: b", "b: damaged")),
        (httpx2.Response(503, json={"detail": "no model is loaded"}), (False, "no: no model", "")),
        (httpx2.Response(503, text="<h1>no backend</h1>"), (False, "no: 503 <h1>no backend", "")),
        (httpx2.Response(200, text="Welcome to nginx"), (False, "no: 200 Welcome", "")),
    ],
)
def test_whatever_answers_at_readyz_is_told(
    monkeypatch: pytest.MonkeyPatch, answer: httpx2.Response, words: tuple[bool, str, str]
) -> None:
    monkeypatch.setattr(httpx2, "get", lambda *_, **__: answer)
    place = "http://127.0.0.1:1"
    state = ClusterState(1, "127.0.0.1", 1, "127.0.0.1:1", place, "/tmp")
    ready, said, fails = cluster._ready(state)
    assert (ready, fails) == (words[0], words[2])
    assert said.startswith(words[1])


def test_a_home_that_is_a_file_is_one_line(resight: Resight, home: Path) -> None:
    home.write_text("no folder")
    commands = ("up", "down", "status", "env", "logs", "models promote m@1", "runs cancel r", "ingest .")
    for words in (*commands, f"models pull {MODELS / 'motion'}"):
        refused = resight(*words.split()).refused(7)
        assert f"cannot use {home} as the home: it is a file; set RESIGHT_HOME to a folder" in refused


def test_up_starts_nothing_where_it_cannot_write(resight: Resight, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = home / "logs"
    home.mkdir()
    logs.write_text("no folder")
    done = resight("up", "--port", preferred_or_free(0))
    assert done.code == 7
    assert f"cannot use {home} as the home" in done.err
    assert str(logs) in done.err


@pytest.mark.parametrize("failures", [{}, {"b": "damaged"}])
def test_up_fails_with_a_model_that_fails_and_leaves_the_cluster_up(
    resight: Resight, home: Path, monkeypatch: pytest.MonkeyPatch, failures: dict[str, str]
) -> None:
    state = ClusterState(1, "127.0.0.1", 8000, "127.0.0.1:1", "http://127.0.0.1:1", "/tmp")
    answer = httpx2.Response(200, json={"loaded": ["a@1"], "failures": failures})
    monkeypatch.setattr(httpx2, "get", lambda *_, **__: answer)
    monkeypatch.setattr(cluster, "read_state", lambda _: state)
    for step in ("join", "deploy"):
        monkeypatch.setattr(cluster, step, lambda *_: None)
    done = resight("up")
    assert "yes: a@1" in done.out
    assert done.code == (6 if failures else 0)
    assert ("error the cluster is up, but a model fails: b: damaged" in done.err) == bool(failures)


def test_signals_reload_and_stop_a_cluster_in_the_foreground(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "sigtimedwait", raising=False)  # as on macOS
    state = ClusterState(1, "127.0.0.1", 8000, "127.0.0.1:1", "http://127.0.0.1:1", "/tmp")
    numbers, done = [signal.SIGHUP, signal.SIGTERM], list[str]()
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (*numbers, signal.SIGINT)}

    def read_state(_: Settings) -> ClusterState:
        os.kill(os.getpid(), numbers.pop(0))
        return state

    monkeypatch.setattr(cluster, "read_state", read_state)
    monkeypatch.setattr("serve.client.Client.reload", lambda _: done.append("reload"))
    monkeypatch.setattr(cluster, "stop", lambda _: done.append("stop"))
    try:
        cluster._stay(Settings(), state)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    assert done == ["reload", "stop"]


def test_while_one_process_serves_status_and_down_name_it(
    resight: Resight, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ready(url: str) -> tuple[bool, str, str]:
        asked.append(url)
        return True, "yes: motion@1", ""

    monkeypatch.setattr("cli.cluster._ready", ready)
    with home_lock(Settings(), "http://127.0.0.1:8123"):
        done = resight("status", "--format", "json")
        assert (done.code, json.loads(done.out)["served_by"]) == (0, "resight serve")
        assert asked == ["http://127.0.0.1:8123"]
        assert "at http://127.0.0.1:8123: stop it with Ctrl-C" in resight("down").err
        refused = resight("up", "--port", preferred_or_free(0)).refused(8)
        assert "at http://127.0.0.1:8123: stop it with Ctrl-C" in refused
    assert json.loads(resight("status", "--format", "json").out)["cluster"] == "down"
    assert "resight serve" not in resight("down").err


def test_up_on_a_taken_port_begins_nothing(resight: Resight, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} is in use" in resight("up", "--port", port).refused(8)
        assert not home.exists()
