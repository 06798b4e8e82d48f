"""Test whether hostile files can crash a replica, cause 5xx responses or leak memory.

python benchmarks/hostile_images.py [--corpus pillow-13.0.0.tar.gz FOLDER …] [--images 10000] [--quick]

A separate replica (uvicorn, no Ray, loopback) receives every file of the corpus, then mutations up to `images` files,
then bombs, from several concurrent clients: as bodies, in forms, and as binary and JSON tensors. Some requests have a
timeout of 20 ms, some are cut halfway. A good corpus are the tests of Pillow:
pip download --no-binary :all: --no-deps pillow.

5xx       other than 503 and 504, of a request or of a file in a form.   lost  no response within a minute.
died      the process ended, or took more than `most_mib`.               loop  the longest time of /healthz.
growth    RSS at the end, minus RSS after every file of the corpus was processed once: no leak.
control   OpenCV alone must fail on two of the bombs (unguarded_decoder.py); otherwise they are not bombs.

The exit code is 1 if a verdict does not hold; harmful bodies are then kept next to the log.
"""

from __future__ import annotations

import argparse
import itertools
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from harness import ROOT, facts, keep, table, verdicts

from benchmarks.hostile_bodies import Sent, form, mutations, requests, seeds, tensor
from benchmarks.own_replica import Replica, replica
from benchmarks.unguarded_decoder import bounds, controls
from tests.hostile_bombs import animated_png, pixel_bombs, table_bombs

ALLOWED_5XX = (503, 504)
LOST = 0
BROKEN_OFF = -1
TIMEOUT_S = 60.0
SETTLE_S = 3.0
SLOWEST = 10


def main() -> int:
    arguments = arguments_of()
    corpus = [Path(place).name for place in arguments.corpus]
    result = facts("hostile_images", vars(arguments) | {"corpus": corpus})
    place = Path(tempfile.mkdtemp(prefix="resight-hostile-"))
    with replica(ROOT / "examples" / "models", place / "log", arguments.most_mib) as up:
        load = Load(up, place, arguments.clients)
        result |= measure(arguments, up, load)
    result["controls"] = controls(result["memory"], arguments.most_mib)
    report(arguments, result, up, load)
    print(f"log and bodies that did harm: {place}", file=sys.stderr)
    keep(result)
    return 0 if all(one["holds"] for one in result["verdicts"].values()) else 1


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="*", default=[], help="folders and .tar.gz archives with files to send")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--growth-mib", type=int, default=200)
    parser.add_argument("--most-mib", type=int, default=4096)
    parser.add_argument("--loop-s", type=float, default=5.0)
    parser.add_argument("--quick", action="store_true", help="300 images, small bombs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images = 300
    return arguments


class Load:
    """Clients that share one stream of requests, and the responses."""

    def __init__(self, up: Replica, place: Path, clients: int) -> None:
        self._up, self._place, self._clients = up, place, clients
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, int]] = Counter()
        self.slowest: list[tuple[float, int, str]] = []
        self.harm: list[tuple[str, int, str]] = []
        self.images = 0

    def run(self, requests: Iterator[Sent]) -> None:
        """Send requests until none are left or the replica is dead."""
        threads = [threading.Thread(target=self._client, args=(requests,)) for _ in range(self._clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, requests: Iterator[Sent]) -> None:
        with httpx2.Client(base_url=self._up.url, timeout=TIMEOUT_S) as http:
            while not self._up.died:
                with self._lock:
                    sent = next(requests, None)
                if sent is None:
                    return
                started = time.perf_counter()
                if sent.cut:
                    break_off(self._up.url, sent)
                    answer = None
                    status = BROKEN_OFF
                else:
                    answer = ask(http, sent)
                    status = LOST if answer is None else answer.status_code
                self._note(sent, answer, status, time.perf_counter() - started)

    def _note(self, sent: Sent, answer: httpx2.Response | None, status: int, seconds: float) -> None:
        found = [(sent.endpoint, status)]
        if answer is not None and status == 200 and sent.endpoint == "detect, form":
            found += [("file of a form", one["status"]) for one in answer.json()["results"]]
        with self._lock:
            self.images += len(sent.names)
            self.counts.update(found)
            what = f"{sent.endpoint}: {', '.join(sent.names)}"
            self.slowest = sorted([*self.slowest, (seconds, status, what)], reverse=True)[:SLOWEST]
            for _, code in found:
                if code == LOST or (code >= 500 and code not in ALLOWED_5XX):
                    self.harm.append((what, code, answer.text[:500] if answer else "no answer"))
                    (self._place / f"body-{len(self.harm)}").write_bytes(sent.body)


def ask(http: httpx2.Client, sent: Sent) -> httpx2.Response | None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in sent.headers.items()]
    try:
        return http.post(sent.path, content=sent.body, headers=headers)
    except httpx2.HTTPError:
        return None


def break_off(url: str, sent: Sent) -> None:
    """Send half of the request and close the connection."""
    place = urlsplit(url)
    lines = [f"POST {sent.path} HTTP/1.1", f"host: {place.netloc}"]
    lines += [f"content-length: {len(sent.body)}", *(f"{k}: {v}" for k, v in sent.headers.items())]
    whole = "\r\n".join((*lines, "", "")).encode("latin-1") + sent.body[: len(sent.body) // 2]
    try:
        with socket.create_connection((place.hostname, place.port), TIMEOUT_S) as connection:
            connection.sendall(whole)
    except OSError:
        pass  # refused before the end, or the replica is dead, which is recorded elsewhere


def measure(arguments: argparse.Namespace, up: Replica, load: Load) -> dict[str, Any]:
    known = seeds(arguments.corpus)
    chance = random.Random(arguments.seed)
    parts = [0, min(len(known), arguments.images // 2)]
    parts += [round(parts[1] + (arguments.images - parts[1]) * i / 5) for i in range(1, 6)]
    images = itertools.chain(
        sorted(known.items())[: parts[1]] if arguments.quick else known.items(), mutations(chance, known)
    )
    rows = [memory("start", up, load)]
    for start, end in itertools.pairwise(parts):
        if up.died:
            break
        load.run(requests(chance, itertools.islice(images, end - start)))
        rows.append(memory("corpus" if not start else "mutations", up, load))
    for name, sent in bombs(1 if arguments.quick else 8, not arguments.quick):
        if up.died:
            break
        load.run(iter(sent))
        rows.append(memory(name, up, load))
    settled = rows[1]["rss_mib"]
    growth = None if up.died else rows[-1]["rss_mib"] - settled
    return {"seeds": len(known), "memory": rows, "growth_mib": growth}


def bombs(mib: int, pixels: bool) -> Iterator[tuple[str, list[Sent]]]:
    """Yield each bomb four times concurrently, as a body, in a form and as a tensor."""
    made = (pixel_bombs() if pixels else {}) | table_bombs(mib)
    made["png_animated"] = ("note", animated_png())
    for name, (_, body) in made.items():
        one = [(name, body)]
        raw = Sent("detect", "/v1/detect?model=motion", body, {}, (name,))
        yield name, [raw, raw, form(one, "motion", {}), tensor(one, "motion", {}, True)]


def memory(name: str, up: Replica, load: Load) -> dict[str, Any]:
    """Return the memory of the replica after a pause in which it can release memory."""
    time.sleep(SETTLE_S)
    slowest, up.slowest_ms = up.slowest_ms, 0.0
    row = {"after": name, "images": load.images, "rss_mib": up.rss_mib()}
    row |= {"peak_mib": up.peak_since(), "healthz_ms": round(slowest, 1)}
    print(row, file=sys.stderr)
    return row


def report(arguments: argparse.Namespace, result: dict[str, Any], up: Replica, load: Load) -> None:
    statuses = sorted({status for _, status in load.counts})
    words = {LOST: "lost", BROKEN_OFF: "broken off"}
    endpoints = sorted({endpoint for endpoint, _ in load.counts})
    result["counts"] = [
        {"endpoint": e, **{words.get(s, str(s)): load.counts[e, s] for s in statuses}} for e in endpoints
    ]
    result["slowest"] = [{"s": round(s, 2), "status": code, "what": what[:150]} for s, code, what in load.slowest]
    result["harm"] = [{"what": w, "status": code, "said": text} for w, code, text in load.harm]
    for name in ("counts", "memory", "slowest", "harm", "controls"):
        table(result[name])
        print()
    loop_ms, growth = max(row["healthz_ms"] for row in result["memory"]), result["growth_mib"]
    most_mib, growth_mib = arguments.most_mib, arguments.growth_mib
    lost = sum(n for (_, status), n in load.counts.items() if status == LOST)
    verdicts(
        result,
        [
            ("images", load.images, f">= {arguments.images}", load.images >= arguments.images),
            ("5xx", len(load.harm) - lost, "0", len(load.harm) == lost),
            ("lost", lost, "0", not lost),
            ("died", up.died or "no", "no", not up.died),
            ("loop_ms", loop_ms, f"<= {arguments.loop_s * 1e3:.0f}", loop_ms <= arguments.loop_s * 1e3),
            ("peak_mib", up.highest_mib, f"<= {most_mib}", up.highest_mib <= most_mib),
            ("growth_mib", growth, f"<= {growth_mib}", growth is not None and growth <= growth_mib),
            *bounds(result["controls"]),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
