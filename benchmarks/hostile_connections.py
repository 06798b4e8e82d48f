"""Test whether clients get responses while an attacker occupies connections or a replica is killed.

python benchmarks/hostile_connections.py [--connections 2400] [--hold-s 20] [--kills 50] [--quick]

All requests pass HAProxy as `resight up` starts it, on loopback. In each attack, --connections connections are opened
and kept open. During it, `/healthz` and `POST /v1/detect` are requested over new connections, one after the other.

headers   a request line and one header, never completed; 1.75 times the connections
bodies    POST /v2/repository/index, one byte of the announced body
forms     POST /v1/detect, a form before its first file
waiting   POST /v1/images?wait_s=30, an eighth of the connections, 20 a second: the sender waits for its rows
burst     the same, all of them at once: many pictures, which others wait for (no bound but the length of the queue)
unread    POST /v2/models/…/infer, an eighth of the connections: raw outputs as JSON that the sender does not read
kills     a replica is killed while clients send requests; each status is counted, and 500 must not occur

A 429 is an answer: while the queue is full, a request is refused at once. The exit code is 1 if a verdict does not
hold. The control of the attacks is the same measurement without attack.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
from harness import MODEL, ROOT, arguments_of, facts, keep, table, verdicts

from benchmarks.own_cluster import Cluster, cluster

CAT = ROOT / "examples" / "photos" / "cat.jpg"
SIDE = 300
TIMEOUT_S = 20.0
BOUND_S = 1.0
"""Maximum response time for other clients, or twice the slowest response without attack if that is more."""
BETWEEN_S = 0.1
RECOVERY_S = 60.0
CLIENTS = 6
BURST = "burst"
GOOD = ("200", "429")


@dataclass
class Watch:
    """Responses to other clients by request: the slowest in seconds, and the count of each status."""

    slowest_s: dict[str, float] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)

    def ask(self, url: str, name: str, method: str, path: str, body: bytes = b"") -> None:
        started = time.perf_counter()
        status = asked(url, method, path, body)
        self.slowest_s[name] = max(self.slowest_s.get(name, 0.0), time.perf_counter() - started)
        self.statuses[f"{name} {status}"] += 1


def main() -> int:
    arguments = arguments_of(__doc__, connections=2400, hold_s=20.0, kills=50)
    if arguments.quick:
        arguments.connections, arguments.hold_s, arguments.kills = 300, 3.0, 2
    allow_files(2 * arguments.connections + 1000)
    result = facts("hostile_connections", vars(arguments))
    with cluster() as up:
        rows = [measured(up, "at rest", 0, b"", arguments.hold_s)]
        for name, count, request, per_s in attacks(arguments.connections):
            rows.append(measured(up, name, count, request, arguments.hold_s, per_s))
        kills = killed(up, arguments.kills)
    table([{k: v for k, v in row.items() if k != "statuses"} for row in rows])
    print(json.dumps(kills))
    bound = max(BOUND_S, *(2 * rows[0][name] for name in ("healthz_s", "detect_s")))
    found = [
        (
            f"{row['attack']}: slowest",
            max(row["healthz_s"], row["detect_s"]),
            f"<= {bound:.1f} s",
            max(row["healthz_s"], row["detect_s"]) <= bound and all(status[-3:] in GOOD for status in row["statuses"]),
        )
        for row in rows
        if row["attack"] != BURST
    ]
    found.append(("500 of killed replicas", kills.get("500", 0), "0", not kills.get("500")))
    result |= {"attacks": rows, "kills": kills}
    verdicts(result, found)
    keep(result)
    return 0 if all(holds for *_, holds in found) else 1


def allow_files(count: int) -> None:
    """Raise the limit of open files of this process; exit with a message if the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        sys.exit(f"{count} open files are needed and {hard} allowed: raise 'ulimit -n', or --connections less")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


def attacks(connections: int) -> Iterator[tuple[str, int, bytes, float]]:
    """Yield the name of each attack, its number of connections, the bytes that each sends, and connections a second."""
    at_once = float("inf")
    photo = CAT.read_bytes()
    yield "headers", connections * 7 // 4, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: 1", at_once
    yield "bodies", connections, request("/v2/repository/index", b"{", 100, "application/json"), at_once
    form = "multipart/form-data; boundary=b"
    yield "forms", connections, request(f"/v1/detect?model={MODEL}", b"--b\r\n", 1000, form), at_once
    waiting = f"/v1/images?model={MODEL}&camera=field&wait_s=30"
    upload = request(waiting, photo, len(photo), "image/jpeg")
    yield "waiting", connections // 8, upload, 20.0
    yield BURST, connections // 8, upload, at_once
    infer = raw_outputs()
    unread = request(f"/v2/models/{MODEL}/infer", infer, len(infer), "application/json", True)
    yield "unread", connections // 8, unread, at_once


def request(path: str, body: bytes, length: int, kind: str, is_gzip: bool = False) -> bytes:
    """Return a POST that announces `length` bytes and sends `body`."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n"
    return (head + ("content-encoding: gzip\r\n" if is_gzip else "") + "\r\n").encode() + body


def raw_outputs() -> bytes:
    """Return a small compressed request with a response of about 3 MB of JSON."""
    numbers = [0] * (3 * SIDE * SIDE)
    tensor = {"name": "images", "shape": [1, 3, SIDE, SIDE], "datatype": "FP32", "data": numbers}
    return gzip.compress(json.dumps({"inputs": [tensor]}).encode())


def measured(
    up: Cluster, name: str, count: int, request: bytes, hold_s: float, per_s: float = float("inf")
) -> dict[str, Any]:
    """Return the responses to other clients from when `count` connections are open, or are being opened at a rate."""
    place, watch, photo = urlsplit(up.url), Watch(), CAT.read_bytes()
    opened: list[socket.socket] = []

    def open_all() -> None:
        for _ in range(count):
            with contextlib.suppress(OSError):  # refused: the limit of connections is reached
                connection = held.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(2)
                connection.connect((place.hostname, place.port))
                connection.sendall(request)
                opened.append(connection)
            time.sleep(1 / per_s)

    with contextlib.ExitStack() as held:
        opening = threading.Thread(target=open_all)
        opening.start()
        if per_s == float("inf"):
            opening.join()
        until = time.monotonic() + hold_s + count / per_s
        while time.monotonic() < until or opening.is_alive():
            watch.ask(up.url, "healthz", "GET", "/healthz")
            watch.ask(up.url, "detect", "POST", f"/v1/detect?model={MODEL}", photo)
            time.sleep(BETWEEN_S)
    time.sleep(2)
    good = sum(n for status, n in watch.statuses.items() if status.endswith(" 200"))
    return {
        "attack": name,
        "connections": len(opened),
        "healthz_s": round(watch.slowest_s["healthz"], 3),
        "detect_s": round(watch.slowest_s["detect"], 3),
        "answers": good,
        "other_statuses": watch.statuses.total() - good,
        "statuses": dict(watch.statuses),
    }


def asked(url: str, method: str, path: str, body: bytes = b"") -> str:
    """Return the status of one request over a separate connection, or the name of the client's error."""
    try:
        return str(httpx2.request(method, url + path, content=body, timeout=TIMEOUT_S).status_code)
    except httpx2.HTTPError as error:
        return type(error).__name__


def killed(up: Cluster, kills: int) -> dict[str, int]:
    """Kill detector replicas while clients send requests without retries; return the count of each status."""
    statuses: Counter[str] = Counter()
    stopped, lock = threading.Event(), threading.Lock()
    photo = CAT.read_bytes()

    def client() -> None:
        while not stopped.is_set():
            status = asked(up.url, "POST", f"/v1/detect?model={MODEL}", photo)
            with lock:
                statuses[status] += 1
            if status != "200":
                time.sleep(0.5)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for _ in range(kills):
        for process in up.replicas():
            if any("Detector" in word for word in process.cmdline()):
                process.kill()
        time.sleep(1)
        until = time.monotonic() + RECOVERY_S
        while time.monotonic() < until and asked(up.url, "GET", "/readyz") != "200":
            time.sleep(0.5)
        time.sleep(1)
    stopped.set()
    for thread in threads:
        thread.join()
    return dict(statuses)


if __name__ == "__main__":
    sys.exit(main())
