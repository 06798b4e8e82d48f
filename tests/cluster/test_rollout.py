"""Live swaps on both hosts: what goes wrong leaves the old version serving and says why."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from examples.make_models import SSDLITE
from model_store.adding.add import add_version
from model_store.errors import ResightError
from model_store.names import version_id
from model_store.store import READY, ModelStore
from serve.api.headers import unavailable
from serve.api.problems import status_of
from serve.client import Client
from tests.cluster.hosts import ON_CLUSTER, Host, wait_for
from tests.cluster.late import Promotion, may_answer
from tests.cluster.load import Load
from tests.graphs import endless

pytestmark = pytest.mark.cluster

NAME = "swapped"
FLOORS = {"1": 0.01, "2": 0.5}
"""Versions differ in their floor, so that the number of detections says who computed an answer."""
MOST_FAILED = 150
"""Requests of one client while a replica starts: a minute, at 0.4 s and more for each with its retry."""


@pytest.fixture(scope="module")
def store(host: Host) -> ModelStore:
    """swapped@1 and @2 of the same weights; 1 serves."""
    store = ModelStore(host.settings.models_url)
    shipped = store.describe(version_id("ssdlite-coco", "1"))
    weights = store.read_file(shipped, "model.onnx")
    probe = {"probe/cat.jpg": (Path("examples/photos/cat.jpg")).read_bytes()}
    for version, floor in FLOORS.items():
        config = SSDLITE | {"score_floor": floor}
        add_version(store, version_id(NAME, version), weights, config, probe)
    done = host.resight("models", "promote", f"{NAME}@1")
    assert done.returncode == 0, done.stderr
    return store


@pytest.fixture(autouse=True)
def back_to_1(host: Host, store: ModelStore) -> Iterator[None]:
    yield
    url = f"{host.url}/v1/models/{NAME}/promote"
    done = httpx2.post(url, json={"version": "1"}, timeout=120)
    assert done.json()["state"] == "done", done.text


def not_ready(host: Host) -> str:
    answer = httpx2.get(f"{host.url}/readyz", timeout=30)
    return "" if answer.status_code == 200 else answer.text


def serving(host: Host, name: str = NAME) -> dict[str, Any]:
    about = httpx2.get(f"{host.url}/v1/models/{name}", timeout=30).json()
    return dict(about)


def answering(host: Host, photo: Any) -> str:
    answer = host.detect(photo("cat"), NAME)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"]["version"])


def test_swaps_under_load_drop_mix_and_delay_no_answer(host: Host, store: ModelStore, photo: Any) -> None:
    """Half of them load a version that was released before."""
    body = photo("person")
    expected = {}
    for version in FLOORS:
        answer = host.detect(body, f"{NAME}@{version}", min_score=0).json()
        expected[version] = len(answer["detections"])
    assert expected["1"] > expected["2"] > 0
    promotions = [Promotion("1", 0, 0)]
    load = Load(host.url, body, NAME, pause_s=0.05, min_score=0)
    with load, Client(host.url) as client:
        for turn in range(4):
            version = "21"[turn % 2]
            new_outcome = time.monotonic()
            post = {"version": version}
            done = httpx2.post(f"{host.url}/v1/models/{NAME}/promote", json=post, timeout=120)
            assert done.json()["state"] == "done", done.text
            promotions.append(Promotion(version, new_outcome, time.monotonic()))
            assert {answering(host, photo) for _ in range(3)} == {version}, "asked at once"
            if turn % 2 == 0:
                freed = httpx2.post(f"{host.url}/v1/models/{NAME}/release", json={"version": "1"}, timeout=60)
                assert freed.status_code == 200, freed.text
            enough = len(load.answers) + 15
            wait_for(lambda enough=enough: len(load.answers) >= enough)
        assert client.events(NAME, 1)[0].outcome.state == "done"
    assert load.errors == []
    assert len(load.answers) > 50
    seen = set()
    checked = 0
    for new_outcome, answered, answer in load.answers:
        assert answer.status_code == 200, answer.text
        body_ = answer.json()
        version = body_["model"]["version"]
        seen.add(version)
        assert len(body_["detections"]) == expected[version], "another version's answer"
        possible = may_answer(new_outcome, answered, promotions)
        assert version in possible, "an answer of the old version after promote returned"
        checked += len(possible) == 1
    assert seen == {"1", "2"}
    assert checked > 10, "nearly every answer came while something was promoted"


def test_a_roll_back_is_one_command(host: Host, store: ModelStore, photo: Any) -> None:
    before = serving(host)["aliases"]["production"]["previous"]
    assert host.resight("models", "promote", f"{NAME}@2").returncode == 0
    done = host.resight("models", "rollback", NAME)
    assert done.returncode == 0, done.stderr
    assert answering(host, photo) == "1"
    history = host.resight("models", "history", NAME, "--format", "json", "--most", "2")
    newest, older = json.loads(history.stdout)
    assert (newest["what"], newest["before"], newest["after"]) == ("rollback production", "2", "1")
    assert (older["what"], older["after"]) == ("promote production", "2")
    left = serving(host)["aliases"]["production"]["previous"]
    assert left == before[len(before) - len(left) :], "what was rolled back is not rolled back to"


def test_a_wrong_probe_is_refused_and_the_reason_kept(host: Host, store: ModelStore, photo: Any) -> None:
    """Every digest is right; the model just does not see what it is said to see."""
    described = store.describe(version_id(NAME, "2"))
    files = {name: store.read_file(described, name) for name in described.digests}
    expected = json.loads(files["probe/expected.json"])
    expected["images"]["cat.jpg"][0]["label"] = "dog"
    files["probe/expected.json"] = json.dumps(expected).encode()
    store.publish(version_id(NAME, "wrong"), files)
    done = host.resight("models", "promote", f"{NAME}@wrong")
    assert done.returncode != 0
    assert "does not reproduce its probe" in done.stderr
    assert answering(host, photo) == "1"
    assert store.aliases(NAME) == {"production": "1"}
    events = httpx2.get(f"{host.url}/v1/models/{NAME}/events", timeout=30).json()
    assert events[0]["outcome"]["error"] == "ProbeFailed"
    assert events[0]["after"]["active"] == "1"


def test_a_model_that_ends_its_process_hurts_nobody(host: Host, store: ModelStore, photo: Any) -> None:
    """Its graph never returns; the process that tries it is killed from outside."""
    shipped = store.describe(version_id(NAME, "1"))
    files = {name: store.read_file(shipped, name) for name in shipped.digests}
    files["model.onnx"] = endless()
    store.publish(version_id(NAME, "endless"), files)
    outcome: list[Any] = []

    def promote() -> None:
        outcome.append(host.resight("models", "promote", f"{NAME}@endless"))

    asking = threading.Thread(target=promote)
    asking.start()
    wait_for(lambda: bool(proofs(host)))
    assert serving(host)["under_way"][0]["operation"]["version"] == "endless"
    assert answering(host, photo) == "1"
    time.sleep(1)
    for process in proofs(host):
        process.send_signal(signal.SIGKILL)
    asking.join(120)
    assert outcome[0].returncode != 0
    assert "ended the process that loaded it" in outcome[0].stderr
    assert answering(host, photo) == "1"


def test_a_roll_back_does_not_wait_for_versions_that_hang_where_they_are_proved(
    host: Host, store: ModelStore, photo: Any
) -> None:
    """Requests ask for it by name, their senders hang up, and it is promoted as well."""
    shipped = store.describe(version_id(NAME, "1"))
    files = {name: store.read_file(shipped, name) for name in shipped.digests}
    store.publish(version_id(NAME, "hangs"), files | {"model.onnx": endless()})
    assert host.resight("models", "promote", f"{NAME}@2").returncode == 0
    with ThreadPoolExecutor(9) as pool:
        new_outcome = [pool.submit(hang_up, host, photo("cat")) for _ in range(8)]
        for one in new_outcome:
            one.result(60)
        promotion = pool.submit(host.resight, "models", "promote", f"{NAME}@hangs")
        try:
            wait_for(lambda: bool(serving(host)["under_way"]))
            wait_for(lambda: bool(proofs(host)))
            began = time.monotonic()
            done = host.resight("models", "rollback", NAME)
            assert done.returncode == 0, done.stderr
            assert time.monotonic() - began < 60, "a proof may take 300 s"
            assert answering(host, photo) == "1"
            assert len(proofs(host)) == 1, "eight requests and a promotion share a proof"
        finally:
            for process in proofs(host):
                process.send_signal(signal.SIGKILL)
        assert "ended the process that loaded it" in promotion.result(60).stderr


def hang_up(host: Host, body: bytes) -> None:
    with contextlib.suppress(httpx2.TimeoutException):
        parameters = {"model": f"{NAME}@hangs"}
        httpx2.post(f"{host.url}/v1/detect", content=body, params=parameters, timeout=2)


@ON_CLUSTER
def test_what_was_accepted_is_done_though_the_rollout_s_process_ends(host: Host, store: ModelStore, photo: Any) -> None:
    described = store.describe(version_id(NAME, "2"))
    store.publish(version_id(NAME, "new"), {name: store.read_file(described, name) for name in described.digests})
    url = f"{host.url}/v1/models/{NAME}/promote"
    (process,) = host.processes("ray::RolloutActor")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(httpx2.post, url, json={"version": "new"}, timeout=150)
        place = f"{NAME}/.rollout/operations"
        wait_for(lambda: any(name.endswith(".json") for name in store.folder.names(place)))
        process.kill()
        answer = asking.result(160).json()
    operation = f"{host.url}/v1/operations/{answer['id']}"
    states: list[str] = []

    def is_done() -> bool:
        found = httpx2.get(operation, timeout=60)
        assert found.status_code == 200, found.text
        states.append(found.json()["state"])
        return states[-1] in ("done", "refused")

    wait_for(is_done, seconds=120)
    assert states[-1] == "done"
    assert answering(host, photo) == "new"
    events = httpx2.get(f"{host.url}/v1/models/{NAME}/events", timeout=30).json()
    assert answer["id"] in [event["outcome"]["id"] for event in events]


def proofs(host: Host) -> list[psutil.Process]:
    """Processes that load a model: each is the child of a child of the process that forks them."""
    servers = {p.pid: p for p in host.processes("serve.rollout.fork_server")}
    parents = {p.ppid() for p in servers.values()}
    return [p for p in servers.values() if p.ppid() in servers and p.pid not in parents]


def test_an_alias_file_changed_by_hand_is_followed(host: Host, store: ModelStore, photo: Any) -> None:
    store.folder.write(f"{NAME}/aliases.json", b'{"production": "2"}')
    wait_for(lambda: serving(host)["aliases"]["production"]["active"] == "2")
    assert answering(host, photo) == "2"


def test_a_version_copied_bit_by_bit_serves_when_it_is_whole_and_not_before(
    host: Host, store: ModelStore, photo: Any
) -> None:
    """READY first, as rsync would: upper case sorts before lower case."""
    whole = Path(host.settings.models_url) / NAME / "2"
    copy = whole.with_name("copied")
    copy.mkdir()
    shutil.copy(whole / READY, copy / READY)
    store.folder.write(f"{NAME}/aliases.json", b'{"production": "copied"}')
    wait_for(lambda: "production" in str(serving(host)["failures"]))
    for file in sorted(p for p in whole.rglob("*") if p.is_file() and p.name != READY):
        assert answering(host, photo) == "1"
        target = copy / file.relative_to(whole)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(file, target)
    reloaded = host.resight("models", "promote", f"{NAME}@copied")
    assert reloaded.returncode == 0, reloaded.stderr
    assert answering(host, photo) == "copied"


def test_a_store_that_goes_away_takes_nothing_with_it(host: Host, store: ModelStore, photo: Any) -> None:
    here = Path(host.settings.models_url)
    away = here.with_name("models-away")
    here.rename(away)
    try:
        time.sleep(3)  # longer than replicas and rollout take to look again
        assert answering(host, photo) == "1"
        assert host.resight("models", "promote", f"{NAME}@2").returncode != 0
        assert answering(host, photo) == "1"
    finally:
        away.rename(here)
    wait_for(lambda: not_ready(host) == "", words=lambda: not_ready(host))
    assert answering(host, photo) == "1"


def test_a_canary_gets_its_share_and_one_image_always_the_same(host: Host, store: ModelStore, photo: Any) -> None:
    done = host.resight("models", "canary", f"{NAME}@2", "50")
    assert done.returncode == 0, done.stderr
    bodies = [photo("cat") + bytes([i]) for i in range(30)]  # a byte after the image
    versions = [host.detect(body, NAME).json()["model"]["version"] for body in bodies]
    assert 5 < versions.count("2") < 25
    again = [host.detect(body, NAME).json()["model"]["version"] for body in bodies]
    assert again == versions
    assert host.resight("models", "canary", f"{NAME}@2", "0").returncode == 0
    assert {host.detect(body, NAME).json()["model"]["version"] for body in bodies} == {"1"}


def is_503(error: ResightError) -> bool:
    """Return whether a replica answered so, or a proxy for one that is gone."""
    proxies = json.loads(bytes(unavailable().body))["detail"]
    return status_of(error) == 503 or str(error) == proxies


@ON_CLUSTER
def test_a_killed_replica_costs_its_clients_a_retry_and_its_successor_serves_the_same(
    host: Host, store: ModelStore, photo: Any
) -> None:
    assert host.resight("models", "promote", f"{NAME}@2").returncode == 0
    (replica,) = host.processes("ServeReplica:detect")
    problems: list[ResightError] = []
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with Client(host.url) as client:
            while not stop.is_set():
                try:
                    answers.append(client.detect(photo("cat"), NAME).model.version)
                except ResightError as error:
                    problems.append(error)
                    time.sleep(0.2)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_for(lambda: len(answers) > 5)
        assert problems == []
        replica.kill()
        wait_for(lambda: not replica.is_running() or replica.status() == psutil.STATUS_ZOMBIE)
        count = len(answers)
        wait_for(lambda: len(answers) > count + 5, seconds=120)
    finally:
        stop.set()
        asking.join()
    assert set(answers) == {"2"}
    assert [str(problem) for problem in problems if not is_503(problem)] == []
    assert len(problems) < MOST_FAILED
    ready = httpx2.get(f"{host.url}/readyz", timeout=30)
    assert ready.status_code == 200, ready.text
    require_that_rays_helpers_wait_for_replicas(host)


def require_that_rays_helpers_wait_for_replicas(host: Host) -> None:
    """Also for a replica that Ray has started again, of which the raylet that waits is the parent."""
    ours = os.sched_getscheduler(0)  # policy of the process that starts the cluster
    for policy, names in (
        (os.SCHED_OTHER, ["ServeReplica:detect:Detector"]),
        (ours, ["haproxy", "HAProxyManager"]),
        (os.SCHED_BATCH, ["gcs_server", "raylet/raylet"]),
    ):
        for name in names:
            processes = host.processes(name)
            assert processes, name
            for process in processes:
                assert os.sched_getscheduler(process.pid) == policy, process.cmdline()


def test_clients_that_go_away_are_not_worked_for(host: Host, store: ModelStore, photo: Any) -> None:
    body = photo("person")
    head = f"POST /v1/detect?model={NAME}@1 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    def counted(outcome: str) -> float:
        text = httpx2.get(f"{host.url}/metrics", timeout=30).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "resight_requests_total" and sample.labels["outcome"] == outcome
        )

    before = counted("ok")
    connections = []
    for _ in range(40):
        connection = socket.create_connection(("127.0.0.1", urlsplit(host.url).port))
        connection.sendall(head.encode() + body[:-1])
        connections.append(connection)
    for connection in connections:  # all at once, so that few are answered before they are gone
        connection.sendall(body[-1:])
    for connection in connections:
        connection.close()
    wait_for(lambda: counted("CancelledError") + counted("ok") - before >= 38)
    assert counted("CancelledError") > 20
    assert answering(host, photo) == "1"
