"""Live swaps on a real cluster: what goes wrong leaves the old version serving and says why."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from examples.make_models import SSDLITE
from model_store.adding.add import add_version
from model_store.errors import ResightError
from model_store.names import version_id
from model_store.store import READY, ModelStore
from serve.api.problems import status_of
from serve.client import Client
from serve.cluster.unavailable import unavailable
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
def store(cluster: Any) -> ModelStore:
    """swapped@1 and @2 of the same weights; 1 serves."""
    store = ModelStore(cluster.settings.models_url)
    shipped = store.describe(version_id("ssdlite-coco", "1"))
    weights = store.read_file(shipped, "model.onnx")
    probe = {"probe/cat.jpg": (Path("examples/photos/cat.jpg")).read_bytes()}
    for version, floor in FLOORS.items():
        config = SSDLITE | {"score_floor": floor}
        add_version(store, version_id(NAME, version), weights, config, probe)
    done = cluster.resight("models", "promote", f"{NAME}@1")
    assert done.returncode == 0, done.stderr
    return store


@pytest.fixture(autouse=True)
def back_to_1(cluster: Any, store: ModelStore) -> Iterator[None]:
    yield
    url = f"{cluster.url}/v1/models/{NAME}/promote"
    done = httpx2.post(url, json={"version": "1"}, timeout=120)
    assert done.json()["state"] == "done", done.text


def wait_until(
    true: Callable[[], bool], seconds: float = 60, words: Callable[[], str] = lambda: ""
) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"it did not come true {words()}"
        time.sleep(0.1)


def not_ready(cluster: Any) -> str:
    answer = httpx2.get(f"{cluster.url}/readyz", timeout=30)
    return "" if answer.status_code == 200 else answer.text


def serving(cluster: Any, name: str = NAME) -> dict[str, Any]:
    about = httpx2.get(f"{cluster.url}/v1/models/{name}", timeout=30).json()
    return dict(about)


def answering(cluster: Any, photo: Any) -> str:
    answer = cluster.detect(photo("cat"), NAME)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"]["version"])


def test_swaps_under_load_drop_mix_and_delay_no_answer(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    """Half of them load a version that was released before."""
    body = photo("person")
    expected = {}
    for version in FLOORS:
        answer = cluster.detect(body, f"{NAME}@{version}", min_score=0).json()
        expected[version] = len(answer["detections"])
    assert expected["1"] > expected["2"] > 0
    promotions = [Promotion("1", 0, 0)]
    load = Load(cluster.url, body, NAME, pause_s=0.05, min_score=0)
    with load, Client(cluster.url) as client:
        for turn in range(8):
            version = "21"[turn % 2]
            new_outcome = time.monotonic()
            post = {"version": version}
            done = httpx2.post(f"{cluster.url}/v1/models/{NAME}/promote", json=post, timeout=120)
            assert done.json()["state"] == "done", done.text
            promotions.append(Promotion(version, new_outcome, time.monotonic()))
            if turn % 2 == 0:
                freed = httpx2.post(
                    f"{cluster.url}/v1/models/{NAME}/release", json={"version": "1"}, timeout=60
                )
                assert freed.status_code == 200, freed.text
            time.sleep(0.5)
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


def test_an_answer_asked_for_after_promote_is_never_the_old_ones(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    for version in ("2", "1") * 3:
        done = httpx2.post(
            f"{cluster.url}/v1/models/{NAME}/promote", json={"version": version}, timeout=60
        )
        assert done.status_code == 200, done.text
        assert {answering(cluster, photo) for _ in range(3)} == {version}


def test_a_roll_back_is_one_command(cluster: Any, store: ModelStore, photo: Any) -> None:
    before = serving(cluster)["aliases"]["production"]["previous"]
    assert cluster.resight("models", "promote", f"{NAME}@2").returncode == 0
    done = cluster.resight("models", "rollback", NAME)
    assert done.returncode == 0, done.stderr
    assert answering(cluster, photo) == "1"
    history = cluster.resight("models", "history", NAME, "--format", "json", "--most", "2")
    newest, older = json.loads(history.stdout)
    assert (newest["what"], newest["before"], newest["after"]) == ("rollback production", "2", "1")
    assert (older["what"], older["after"]) == ("promote production", "2")
    left = serving(cluster)["aliases"]["production"]["previous"]
    assert left == before[len(before) - len(left) :], "what was rolled back is not rolled back to"


def test_a_wrong_probe_is_refused_and_the_reason_kept(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    """Every digest is right; the model just does not see what it is said to see."""
    described = store.describe(version_id(NAME, "2"))
    files = {name: store.read_file(described, name) for name in described.digests}
    expected = json.loads(files["probe/expected.json"])
    expected["images"]["cat.jpg"][0]["label"] = "dog"
    files["probe/expected.json"] = json.dumps(expected).encode()
    store.publish(version_id(NAME, "wrong"), files)
    done = cluster.resight("models", "promote", f"{NAME}@wrong")
    assert done.returncode != 0
    assert "does not reproduce its probe" in done.stderr
    assert answering(cluster, photo) == "1"
    assert store.aliases(NAME) == {"production": "1"}
    events = httpx2.get(f"{cluster.url}/v1/models/{NAME}/events", timeout=30).json()
    assert events[0]["outcome"]["error"] == "ProbeFailed"
    assert events[0]["after"]["active"] == "1"


def test_a_model_that_ends_its_process_hurts_nobody(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    """Its graph never returns; the process that tries it is killed from outside."""
    shipped = store.describe(version_id(NAME, "1"))
    files = {name: store.read_file(shipped, name) for name in shipped.digests}
    files["model.onnx"] = endless()
    store.publish(version_id(NAME, "endless"), files)
    outcome: list[Any] = []

    def promote() -> None:
        outcome.append(cluster.resight("models", "promote", f"{NAME}@endless"))

    asking = threading.Thread(target=promote)
    asking.start()
    wait_until(lambda: bool(proofs(cluster)))
    assert serving(cluster)["under_way"][0]["operation"]["version"] == "endless"
    assert answering(cluster, photo) == "1"
    time.sleep(1)
    for process in proofs(cluster):
        process.send_signal(signal.SIGKILL)
    asking.join(120)
    assert outcome[0].returncode != 0
    assert "ended the process that loaded it" in outcome[0].stderr
    assert answering(cluster, photo) == "1"


def test_a_roll_back_does_not_wait_for_versions_that_hang_where_they_are_proved(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    """Requests ask for it by name, their senders hang up, and it is promoted as well."""
    shipped = store.describe(version_id(NAME, "1"))
    files = {name: store.read_file(shipped, name) for name in shipped.digests}
    store.publish(version_id(NAME, "hangs"), files | {"model.onnx": endless()})
    assert cluster.resight("models", "promote", f"{NAME}@2").returncode == 0
    with ThreadPoolExecutor(9) as pool:
        new_outcome = [pool.submit(hang_up, cluster, photo("cat")) for _ in range(8)]
        for one in new_outcome:
            one.result(60)
        promotion = pool.submit(cluster.resight, "models", "promote", f"{NAME}@hangs")
        try:
            wait_until(lambda: bool(serving(cluster)["under_way"]))
            wait_until(lambda: bool(proofs(cluster)))
            began = time.monotonic()
            done = cluster.resight("models", "rollback", NAME)
            assert done.returncode == 0, done.stderr
            assert time.monotonic() - began < 60, "a proof may take 300 s"
            assert answering(cluster, photo) == "1"
            assert len(proofs(cluster)) == 1, "eight requests and a promotion share a proof"
        finally:
            for process in proofs(cluster):
                process.send_signal(signal.SIGKILL)
        assert "ended the process that loaded it" in promotion.result(60).stderr


def hang_up(cluster: Any, body: bytes) -> None:
    with contextlib.suppress(httpx2.TimeoutException):
        parameters = {"model": f"{NAME}@hangs"}
        httpx2.post(f"{cluster.url}/v1/detect", content=body, params=parameters, timeout=2)


def test_what_was_accepted_is_done_though_the_rollout_s_process_ends(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    described = store.describe(version_id(NAME, "2"))
    store.publish(
        version_id(NAME, "new"),
        {name: store.read_file(described, name) for name in described.digests},
    )
    url = f"{cluster.url}/v1/models/{NAME}/promote"
    (process,) = workers(cluster, "ray::RolloutActor")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(httpx2.post, url, json={"version": "new"}, timeout=150)
        place = f"{NAME}/.rollout/operations"
        wait_until(lambda: any(name.endswith(".json") for name in store.folder.names(place)))
        process.kill()
        answer = asking.result(160).json()
    operation = f"{cluster.url}/v1/operations/{answer['id']}"
    states: list[str] = []

    def is_done() -> bool:
        found = httpx2.get(operation, timeout=60)
        assert found.status_code == 200, found.text
        states.append(found.json()["state"])
        return states[-1] in ("done", "refused")

    wait_until(is_done, seconds=120)
    assert states[-1] == "done"
    assert answering(cluster, photo) == "new"
    events = httpx2.get(f"{cluster.url}/v1/models/{NAME}/events", timeout=30).json()
    assert answer["id"] in [event["outcome"]["id"] for event in events]


def proofs(cluster: Any) -> list[psutil.Process]:
    """Children of the process that forks one for each proof."""
    zygotes = {process.pid for process in workers(cluster, "serve.rollout.fork_server")}
    return [p for p in workers(cluster, "serve.rollout.fork_server") if p.ppid() in zygotes]


def workers(cluster: Any, words: str) -> list[psutil.Process]:
    """Processes of this very cluster, by their title."""
    ours = psutil.Process(cluster.state.pid).children(recursive=True)
    return [p for p in ours if words in " ".join(p.cmdline())]


def test_an_alias_file_changed_by_hand_is_followed(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    store.folder.write(f"{NAME}/aliases.json", b'{"production": "2"}')
    wait_until(lambda: serving(cluster)["aliases"]["production"]["active"] == "2")
    assert answering(cluster, photo) == "2"


def test_a_version_copied_bit_by_bit_serves_when_it_is_whole_and_not_before(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    """READY first, as rsync would: upper case sorts before lower case."""
    whole = Path(cluster.settings.models_url) / NAME / "2"
    copy = whole.with_name("copied")
    copy.mkdir()
    shutil.copy(whole / READY, copy / READY)
    store.folder.write(f"{NAME}/aliases.json", b'{"production": "copied"}')
    wait_until(lambda: "production" in str(serving(cluster)["failures"]))
    for file in sorted(p for p in whole.rglob("*") if p.is_file() and p.name != READY):
        assert answering(cluster, photo) == "1"
        target = copy / file.relative_to(whole)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(file, target)
    reloaded = cluster.resight("models", "promote", f"{NAME}@copied")
    assert reloaded.returncode == 0, reloaded.stderr
    assert answering(cluster, photo) == "copied"


def test_a_store_that_goes_away_takes_nothing_with_it(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    here = Path(cluster.settings.models_url)
    away = here.with_name("models-away")
    here.rename(away)
    try:
        time.sleep(3)  # longer than replicas and rollout take to look again
        assert answering(cluster, photo) == "1"
        assert cluster.resight("models", "promote", f"{NAME}@2").returncode != 0
        assert answering(cluster, photo) == "1"
    finally:
        away.rename(here)
    wait_until(lambda: not_ready(cluster) == "", words=lambda: not_ready(cluster))
    assert answering(cluster, photo) == "1"


def test_a_canary_gets_its_share_and_one_image_always_the_same(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    done = cluster.resight("models", "canary", f"{NAME}@2", "50")
    assert done.returncode == 0, done.stderr
    names = ("cat", "person", "moose", "crocodile", "panda")
    bodies = [photo(name) + bytes([i]) for name in names for i in range(6)]  # bytes after the image
    versions = [cluster.detect(body, NAME).json()["model"]["version"] for body in bodies]
    assert 5 < versions.count("2") < 25
    again = [cluster.detect(body, NAME).json()["model"]["version"] for body in bodies]
    assert again == versions
    assert cluster.resight("models", "canary", f"{NAME}@2", "0").returncode == 0
    assert {cluster.detect(body, NAME).json()["model"]["version"] for body in bodies} == {"1"}


def is_503(error: ResightError) -> bool:
    """Return whether a replica answered so, or a proxy for one that is gone."""
    proxies = json.loads(bytes(unavailable().body))["detail"]
    return status_of(error) == 503 or str(error) == proxies


def test_a_killed_replica_costs_its_clients_a_retry_and_its_successor_serves_the_same(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    assert cluster.resight("models", "promote", f"{NAME}@2").returncode == 0
    (replica,) = workers(cluster, "ServeReplica:detect")
    problems: list[ResightError] = []
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with Client(cluster.url) as client:
            while not stop.is_set():
                try:
                    answers.append(client.detect(photo("cat"), NAME).model.version)
                except ResightError as error:
                    problems.append(error)
                    time.sleep(0.2)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_until(lambda: len(answers) > 5)
        assert problems == []
        replica.kill()
        wait_until(lambda: not replica.is_running() or replica.status() == psutil.STATUS_ZOMBIE)
        count = len(answers)
        wait_until(lambda: len(answers) > count + 5, seconds=120)
    finally:
        stop.set()
        asking.join()
    assert set(answers) == {"2"}
    assert [str(problem) for problem in problems if not is_503(problem)] == []
    assert len(problems) < MOST_FAILED
    ready = httpx2.get(f"{cluster.url}/readyz", timeout=30)
    assert ready.status_code == 200, ready.text


def test_clients_that_go_away_are_not_worked_for(
    cluster: Any, store: ModelStore, photo: Any
) -> None:
    body = photo("person")
    head = (
        f"POST /v1/detect?model={NAME}@1 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    def counted(outcome: str) -> float:
        text = httpx2.get(f"{cluster.url}/metrics", timeout=30).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "resight_requests_total" and sample.labels["outcome"] == outcome
        )

    before = counted("ok")
    connections = []
    for _ in range(40):
        connection = socket.create_connection(("127.0.0.1", cluster.state.http_port))
        connection.sendall(head.encode() + body[:-1])
        connections.append(connection)
    for connection in connections:  # all at once, so that few are answered before they are gone
        connection.sendall(body[-1:])
    for connection in connections:
        connection.close()
    wait_until(lambda: counted("CancelledError") + counted("ok") - before >= 38)
    assert counted("CancelledError") > 20
    assert answering(cluster, photo) == "1"
