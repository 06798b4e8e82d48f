"""Lose each node of a cluster under load: three Ray nodes in network namespaces, with S3 and Redis on their bridge.

python benchmarks/three_nodes.py [--images 100] [--unplug | --upgrade] [--quick]     as root
It needs ip, unshare and redis-server.
The nodes are those of `ray_nodes.py`.

Each node has its own addresses, processes and folders, and starts as in `cluster.yaml`. Clients send pictures and
detections to the proxies of all nodes, and repeat an answer of 429 or 503 on the next node, as a load balancer does.
One phase after the other, each with a run over its own part of the archive:

- `all nodes`: the run decodes on one node (`--decode-on`), and the model `motion` is in a pool of its own.
- `worker lost`: all processes of a worker get SIGKILL in the middle of the run, and it starts again.
  With `--unplug` its network ends first, so that no peer sees its connections end.
- `worker drained`: `ray drain-node` and `ray stop` in the middle of the run, and it starts again.
- `head lost`: SIGKILL in the middle of the run, which ends; the head starts again with the same Redis.
- With `--upgrade` no node is killed: the workers, then the head are drained and stopped, and start with a copy of this
  checkout under another version number. In the end only that version answers `GET /v2`.

At the end, an ingest of the uploads and a run do what is left. Then every picture that was acknowledged must have its
file, one row of `media` and one of `results`; so must every picture of the archive; and no client had another answer
than 200, 201, 429 and 503, or no connection to a node that was lost. The negative control counts the results of an
upload that was never sent: it must be missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from harness import PHOTO, ROOT, arguments_of, facts, keep, need, table, verdicts

need("moto", "boto3", group="dev")

import boto3  # noqa: E402
import httpx2  # noqa: E402
import yaml  # noqa: E402

from archive.delta.tables import Tables  # noqa: E402
from benchmarks.ray_nodes import (  # noqa: E402
    BIN,
    COMMON,
    DASHBOARD,
    MOST_S,
    NODES,
    PLACES,
    STORE,
    TOKEN,
    Nodes,
    deployments,
    ray_nodes,
    until,
)
from examples.sample_archive import build  # noqa: E402

PHASES = ("all nodes", "worker lost", "worker drained", "head lost")
LOST: dict[str, str] = dict(zip(PHASES[1:], ("north", "south", "head"), strict=True))
UPGRADED = "999.0.0"
FINE, AGAIN = ("200", "201"), ("429", "503")


class Clients:
    """Threads that send pictures and detections to all nodes, one request at a time each."""

    def __init__(self) -> None:
        self.phase, self.lost = "", set[str]()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.slowest_s = defaultdict[str, float](float)
        self.acknowledged: dict[str, str] = {}
        """Path of an upload by its digest."""
        self.wrong: list[str] = []
        self._stop, self._lock, self._number = threading.Event(), threading.Lock(), 0
        kinds = ("/v1/images?model=ssdlite-coco", "/v1/detect?model=ssdlite-coco", "/v1/detect?model=motion")
        self._threads = [threading.Thread(target=self._loop, args=(path, i)) for i, path in enumerate(kinds)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _loop(self, path: str, turn: int) -> None:
        jpeg, names, silent = PHOTO.read_bytes(), list(NODES), set[str]()
        with httpx2.Client(headers={"authorization": f"Bearer {TOKEN}"}, timeout=httpx2.Timeout(30, connect=2)) as http:
            while not self._stop.is_set():
                turn += 1
                words = f"picture {path} {turn}".encode()
                body = jpeg[:2] + b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words + jpeg[2:]
                began, status, phase = time.monotonic(), "", self.phase
                while status not in FINE and not self._stop.is_set():
                    name = names[turn % len(names)]
                    if name not in silent or healthy(NODES[name]):
                        silent.discard(name)
                        status = self._send(http, name, path, body)
                        if status == "no answer":
                            silent.add(name)
                    if status not in FINE:
                        turn += 1
                        self._stop.wait(0.3)
                with self._lock:
                    self.slowest_s[phase] = max(self.slowest_s[phase], time.monotonic() - began)
                self._stop.wait(0.4)

    def _send(self, http: httpx2.Client, name: str, path: str, body: bytes) -> str:
        before = name in self.lost
        try:
            answer = http.post(f"http://{NODES[name]}:8000{path}", content=body)
            status, words = str(answer.status_code), answer.text[:300]
        except httpx2.HTTPError as error:
            answer, status, words = None, "no answer", repr(error)
        with self._lock:
            self.seen[self.phase, status] += 1
            if answer and status in FINE and "images" in path:
                self.acknowledged[hashlib.sha256(body).hexdigest()] = answer.json()["media"]["path"]
            lost = before or name in self.lost
            if status not in FINE + AGAIN and not (status == "no answer" and lost):
                self.wrong.append(f"{self.phase}, {name}: {status} {words}")
                print(self.wrong[-1], file=sys.stderr)
        return status


def options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--unplug", action="store_true", help="end the network of the lost worker before its processes")
    how.add_argument("--upgrade", action="store_true", help="stop each node in turn, and start it with another version")


def main() -> None:
    arguments = arguments_of(__doc__, options, images=100)
    images = 60 if arguments.quick else int(arguments.images)
    os.environ.update(COMMON | {"RESIGHT_ADDRESS": DASHBOARD, "PYTHONPATH": str(ROOT)})
    os.environ["RESIGHT_ENDPOINT"] = f"http://{NODES['north']}:8000"
    result = facts("three_nodes", vars(arguments))
    with tempfile.TemporaryDirectory(prefix="rs3-") as folder, Nodes(Path(folder)) as nodes:
        os.environ["RESIGHT_HOME"] = f"{folder}/client"
        began = time.monotonic()
        digests = prepare(nodes, images)
        print(f"the cluster runs after {time.monotonic() - began:.0f} s", file=sys.stderr)
        with Clients() as clients:
            if arguments.upgrade:
                nodes.release = str(other_version(Path(folder) / "release"))
            result["rows"] = [phase(nodes, clients, number, arguments.unplug) for number in range(len(PHASES))]
        result["seconds"] = round(time.monotonic() - began)
        report(result, clients, digests)


def prepare(nodes: Nodes, images: int) -> list[set[str]]:
    """Start the cluster, with models, applications and the parts of the archive; return the digests of each part."""
    s3 = boto3.client("s3", endpoint_url=STORE["AWS_ENDPOINT_URL"])
    s3.create_bucket(Bucket="resight")
    s3.put_object(Bucket="resight", Key="models/motion/deployment.json", Body=b'{"*": {"pool": "lab"}}')
    digests: list[set[str]] = []
    for number in range(len(PHASES)):
        part = nodes.place / "archive" / str(number)
        build(part, images, seed=number)
        files = [file for file in part.rglob("*") if file.is_file()]
        digests.append({hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
        for file in files:
            s3.upload_file(str(file), "resight", str(file.relative_to(nodes.place)))
    resight("ingest", "s3://resight/archive")
    for name in NODES:
        nodes.start(name)
        if name == "head":
            until(lambda: httpx2.get(f"{DASHBOARD}/api/version", timeout=2).status_code < 500)
    until(lambda: len(ray_nodes()) == len(NODES))
    app = yaml.safe_load((ROOT / "serve" / "app.yaml").read_text())
    app["http_options"]["host"] = "0.0.0.0"
    lab = {"num_cpus": 1, "workers": 1, "resources": {"lab": 0.001}}
    app["applications"][0]["args"] |= {
        "replicas": 3,
        "num_cpus": 5,
        "resources": {"detector": 0.001},
        "pools": {"lab": lab},
    }
    file = nodes.place / "cluster-app.yaml"
    file.write_text(yaml.safe_dump(app))
    subprocess.run([f"{BIN}/serve", "deploy", "-a", DASHBOARD, str(file)], check=True, stdout=subprocess.DEVNULL)
    until(whole)
    for model in ("ssdlite-coco", "motion"):
        resight("models", "pull", str(ROOT / "examples" / "models" / model))
        resight("models", "promote", f"{model}@1")
    return digests


def other_version(root: Path) -> Path:
    """Copy the committed files to `root`, with a version number that no release has."""
    root.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "--extract", "--directory", str(root)], input=archive, check=True)
    (root / "METADATA").write_text(f"Metadata-Version: 2.1\nName: resight\nVersion: {UPGRADED}\n")
    return root


def versions() -> dict[str, int]:
    """Return how many of some answers of all nodes came from each version of Resight."""
    token = {"authorization": f"Bearer {TOKEN}"}
    answers = [httpx2.get(f"http://{ip}:8000/v2", headers=token, timeout=5) for ip in NODES.values() for _ in range(20)]
    return dict(Counter(answer.json().get("version", str(answer.status_code)) for answer in answers))


def phase(nodes: Nodes, clients: Clients, number: int, unplug: bool) -> dict[str, Any]:
    """Carry out one phase; return its row of the table."""
    clients.phase = name = PHASES[number]
    upgrade = bool(nodes.release)
    began, uploads = time.monotonic(), len(clients.acknowledged)
    run = start_run(number, *(() if number else ("--decode-on", "decoding")))
    healed = None
    in_middle = None
    if lost := LOST.get(name):
        before = rows_of_runs()
        until(lambda: rows_of_runs() > before or run.poll() is not None)
        at = time.monotonic()
        in_middle = run.poll() is None
        gently = upgrade or name == "worker drained"
        if gently and lost != "head":
            drain(nodes, lost)
        clients.lost.add(lost)
        if gently:
            nodes.inside(lost, f"{BIN}/ray", "stop")
        nodes.kill(lost, unplug and name == "worker lost")
        time.sleep(8)
        nodes.start(lost)
        until(whole)
        clients.lost.discard(lost)
        healed = round(time.monotonic() - at, 1)
    output, problem = run.communicate(timeout=MOST_S)
    tried = time.monotonic()
    while run.returncode and name == "head lost" and time.monotonic() < tried + MOST_S:
        print(f"{time.monotonic() - tried:.0f} s: {problem[-150:]}", file=sys.stderr)
        time.sleep(2)
        run = start_run(number)
        output, problem = run.communicate(timeout=MOST_S)
    counts: dict[str, Any] = {}
    if run.returncode == 0:
        told = json.loads(output)
        counts = told["counts"] | {"nodes": len(told.get("stages", {}).get("images_by_node", ()))}
    else:
        print(f"{name}: the run ended with {run.returncode}: {problem[-600:]}", file=sys.stderr)
    seen = {status: n for (of, status), n in clients.seen.items() if of == name}
    row = {
        "phase": f"{lost} upgraded" if upgrade and lost else name,
        **{status: seen.pop(status, 0) for status in (*FINE, *AGAIN, "no answer")},
        "other": sum(seen.values()),
        "uploads": len(clients.acknowledged) - uploads,
        "slowest_s": round(clients.slowest_s[name], 1),
        "whole_s": healed,
        "run": counts.get("requested"),
        "decoded_on": counts.get("nodes"),
        "in_middle": in_middle,
        "versions": versions(),
        "s": round(time.monotonic() - began),
    }
    print(row, file=sys.stderr)
    return row


def drain(nodes: Nodes, name: str) -> None:
    """Move the replicas and the requests away from the node, for up to 60 s."""
    (node,) = (one["node_id"] for one in ray_nodes() if one["node_ip"] == NODES[name])
    words = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "maintenance"]
    words += ["--address", f"{NODES['head']}:6379", "--node-id", node, "--deadline-remaining-seconds", "90"]
    subprocess.run([f"{BIN}/ray", "drain-node", *words], check=True, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    while time.monotonic() - began < 60:
        if not any(r.get("node_ip") == NODES[name] for d in deployments() for r in d["replicas"]):
            return
        time.sleep(5)


def start_run(number: int, *more: str) -> subprocess.Popen[str]:
    """Start the detection of one part of the archive, on the cluster."""
    words = ["--model", "ssdlite-coco", "--folder", f"s3://resight/archive/{number}", "--chunk", "4", "--actors", "2"]
    words += ["--commit-s", "1", "--format", "json", *more]
    command = [sys.executable, str(ROOT / "resight.py"), "reprocess", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def resight(*words: str) -> str:
    done = subprocess.run([sys.executable, str(ROOT / "resight.py"), *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"resight {' '.join(words)}: {done.returncode} {done.stdout[-500:]} {done.stderr[-1500:]}")
    return done.stdout


def rows_of_runs() -> int:
    return sum(row["run_id"] != "upload" for row in rows_of("results", "run_id"))


def rows_of(name: str, *columns: str) -> list[dict[str, Any]]:
    dataset = Tables(PLACES["RESIGHT_TABLES"]).snapshot(name).to_pyarrow_dataset()
    return list(dataset.to_table(columns=list(columns)).to_pylist())


def whole() -> bool:
    """Return whether all nodes, replicas and proxies are there, and every node answers."""
    states = [d["status"] == "HEALTHY" for d in deployments()]
    ready = len(states) == 4 and all(states) and len(ray_nodes()) == len(NODES)
    return ready and all(httpx2.get(f"http://{ip}:8000/healthz", timeout=5).status_code == 200 for ip in NODES.values())


def healthy(address: str) -> bool:
    """Return whether the node's proxy has replicas, as a load balancer does before it sends requests again."""
    try:
        return httpx2.get(f"http://{address}:8000/-/healthz", timeout=2).status_code == 200
    except httpx2.HTTPError:
        return False


def report(result: dict[str, Any], clients: Clients, digests: list[set[str]]) -> None:
    """Print what was lost or doubled, before and after an ingest of the uploads, and keep the result."""
    table(result["rows"])
    time.sleep(7)  # the recorder commits every 5 s
    acknowledged = set(clients.acknowledged)
    before = missing_or_doubled("results", acknowledged)
    resight("ingest", PLACES["RESIGHT_UPLOADS"])
    rest = json.loads(resight("reprocess", "--model", "ssdlite-coco", "--format", "json", "--chunk", "4"))
    s3 = boto3.client("s3", endpoint_url=STORE["AWS_ENDPOINT_URL"])
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="resight", Prefix="uploads/")
    files = {one["Key"].removeprefix("uploads/") for page in pages for one in page.get("Contents", ())}
    archive = set[str]().union(*digests)
    runs = rows_of("runs", "run_id", "state")
    result["uploads"] = len(acknowledged)
    result["archive"] = len(archive)
    result["run_states"] = dict(Counter(run["state"] for run in runs))
    result["rest"] = rest.get("counts")
    result["wrong"] = clients.wrong[:20]
    control = missing_or_doubled("results", {"0" * 64})
    lost_files = len(set(clients.acknowledged.values()) - files)
    rows = [
        ("uploads without file", lost_files, "0", lost_files == 0),
        ("uploads without their one row of media", n := missing_or_doubled("media", acknowledged), "0", n == 0),
        ("uploads without their one result", n := missing_or_doubled("results", acknowledged), "0", n == 0),
        ("the same before ingest and run", before, "small", True),
        ("archive without its one result", n := missing_or_doubled("results", archive), "0", n == 0),
        ("other answers", len(clients.wrong), "0", not clients.wrong),
        ("never sent, without result", control, "1", control == 1),
    ]
    if result["config"]["upgrade"]:
        last = Counter(result["rows"][-1]["versions"])
        rows.append(("answers of the old version at the end", n := last.total() - last[UPGRADED], "0", n == 0))
    for line in clients.wrong[:20]:
        print(line, file=sys.stderr)
    verdicts(result, rows)
    keep(result)


def missing_or_doubled(name: str, digests: set[str]) -> int:
    found = Counter(row["media_sha256"] for row in rows_of(name, "media_sha256"))
    return sum(found[digest] != 1 for digest in digests)


if __name__ == "__main__":
    main()
