"""The work of a chaos run: what clients, promoters and operators do. Each thing that is acknowledged is in the books.

work = Work(host, keys, seed, books); work.prepare(); work.start(); …; work.stop()

A request that gets no answer, or one that may be repeated, is sent again, as a field station does. Outcomes of requests
that change something: `ok`; `refused` (nothing happened); `unknown` (it may have happened).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from harness import MODEL, ROOT

from benchmarks.endurance.books import digest_of_answer, picture_of, sha256
from benchmarks.endurance.host import FLOORS, Host
from model_store.load import load_detector
from model_store.names import VersionId
from model_store.store import ModelStore

PHOTOS = {name: (ROOT / "examples" / "photos" / f"{name}.jpg").read_bytes() for name in ("cat", "person", "panda")}
TRIES, ANSWER_S, PAUSE_S, PROMOTE_EVERY_S = 6, 40.0, 0.25, 6.0
FIRST_PICTURES, NEW_PICTURES = 12, 4
FOLLOW_S = 5.0
"""Seconds after which every replica accepts a new token (docs/operate/access.md: 4)."""
REPEATABLE = (0, 401, 408, 429, 503, 507)
Draw = random.Random


class Keys:
    """The token of the clients: made new and revoked by a fault. Revoked ones are tried on, to see them refused."""

    def __init__(self, host: Host) -> None:
        self._host, self._number, self._lock = host, 0, threading.Lock()
        self.current, self.revoked = self._added(), ""
        self._name = f"client-{self._number}"

    def rotate(self) -> str:
        """Add a token, then revoke the one before it; return a note."""
        with self._lock:
            old, name, new = self.current, self._name, ""
            for _ in range(TRIES):  # the disk may be full, or the command killed
                new = new or self._added()
                if not new:
                    continue
                if self.current == old:
                    time.sleep(FOLLOW_S)
                self.current, self._name = new, f"client-{self._number}"
                done = self._host.command("tokens", "revoke", name)
                if done.code == 0 or "unknown token" in done.err:
                    self._host.books.write("revoked", token=sha256(old.encode()))
                    self.revoked = old
                    return f"{name} revoked"
        return "not revoked"

    def _added(self) -> str:
        self._number += 1
        words = [word for scope in ("detect", "upload", "review") for word in ("--scope", scope)]
        added = self._host.command("tokens", "add", f"client-{self._number}", *words).out
        return added["token"] if added else ""


@dataclass(frozen=True)
class Reply:
    """An answer: status 0 if there is none; when it was sent and done, by the clock of the books."""

    status: int
    body: Any
    sent: float
    done: float
    wait_s: float

    @property
    def outcome(self) -> str:
        if self.status in (200, 201):
            return "ok"
        return "refused" if 400 <= self.status < 500 else "unknown"


class Work:
    """Threads of mixed work against one host."""

    def __init__(self, host: Host, keys: Keys, seed: int, clients: int = 2) -> None:
        self.host, self.keys, self.books = host, keys, host.books
        self.archive, self._ended = host.folder / "archive", threading.Event()
        self._number, self._lock = 0, threading.Lock()
        self._recorded: list[tuple[str, str]] = []  # (digest, inference key) of rows with a detection
        self._batches: list[str] = []
        makers = [*[self._client] * clients, self._promoter, self._operator]
        self._threads = [
            threading.Thread(target=make, args=(Draw(f"{seed} {number}"),)) for number, make in enumerate(makers)
        ]

    def prepare(self) -> None:
        """Note the true detections of each version, and run version 1 on the first pictures."""
        store = ModelStore(str(self.host.home / "models"))
        for version in FLOORS:
            detector = load_detector(store, VersionId(MODEL, version))
            for photo, data in PHOTOS.items():
                found = detector.detect_encoded(data)[1]
                columns = zip(found.class_ids, found.scores, found.boxes_xyxy, strict=True)
                rows = [{"label": detector.config.labels[c], "score": s, "box_xyxy_px": b} for c, s, b in columns]
                facts = {"version": version, "key": detector.info.inference_key, "photo": photo}
                self.books.write("truth", **facts, digest=digest_of_answer(rows))
        self.books.write("promote", version="1", asked=0.0, outcome="ok")
        draw = Draw("prepare")
        self._ingest(draw, FIRST_PICTURES)
        assert self._run(draw, "1") == "ok", "the first run failed: see the books"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def ask(self, path: str, secret: str, content: bytes | None = None, json: Any = None, params: Any = None) -> Reply:
        """Send a request once; POST if it has a body. Statuses other than those of success are in the books."""
        headers, sent = {"Authorization": f"Bearer {secret}"}, self.books.now()
        method = "GET" if content is None and json is None else "POST"
        url, status, body, wait_s = self.host.url + path, 0, None, 1.0
        try:
            answer = httpx2.request(
                method, url, headers=headers, content=content, json=json, params=params, timeout=ANSWER_S
            )
            status, wait_s = answer.status_code, float(answer.headers.get("retry-after", 1))
            body = answer.json() if answer.text[:1] in "{[" else answer.text[:200]
        except (httpx2.HTTPError, ValueError) as error:
            body = repr(error)[:200]
        reply = Reply(status, body, sent, self.books.now(), min(wait_s, 5.0))
        if reply.outcome != "ok":
            what = f"{body.get('type')} {body.get('detail')}" if isinstance(body, dict) else str(body)
            token = "" if secret == self.host.secret else sha256(secret.encode())
            self.books.write("answer", path=path, status=status, sent=sent, what=what[:300], token=token)
        return reply

    # clients

    def _client(self, draw: Draw) -> None:
        kinds: tuple[tuple[Callable[[Draw], object], float], ...] = (
            (self._detect, 8),
            (self.upload, 7),
            (self._state, 3),
            (self._try_revoked, 2),
        )
        while not self._ended.wait(draw.expovariate(1 / PAUSE_S)):
            _one_of(draw, kinds)(draw)

    def _detect(self, draw: Draw) -> None:
        photo = draw.choice(sorted(PHOTOS))
        params = {"model": MODEL, "min_score": "0"}
        reply = self.ask("/v1/detect", self.keys.current, PHOTOS[photo], params=params)
        if reply.outcome == "ok":
            self.books.write("detect", photo=photo, **_facts(reply))

    def upload(self, draw: Draw, wait_s: int | None = None) -> bool:
        """Send a new picture until it is kept; return whether its rows are recorded."""
        photo, camera = draw.choice(sorted(PHOTOS)), draw.choice(("north", "south"))
        data = self._picture(photo)
        params = {"model": MODEL, "min_score": "0", "camera": camera}
        params["wait_s"] = str(draw.choice((0, 10)) if wait_s is None else wait_s)
        for _ in range(TRIES):
            reply = self.ask("/v1/images", self.keys.current, data, params=params)
            if reply.outcome == "ok":
                media, key = reply.body["media"], reply.body["model"]["inference_key"]
                recorded = reply.body["recorded"]
                self.books.write("upload", photo=photo, recorded=recorded, **media, **_facts(reply))
                if recorded and reply.body["detections"]:
                    self._recorded.append((media["media_sha256"], key))
                return recorded
            if reply.status not in REPEATABLE or self._ended.wait(reply.wait_s):
                return False
        return False

    def _state(self, draw: Draw) -> None:
        """Record a batch of statements, or undo one."""
        if not self._recorded:
            return
        batch = f"{draw.getrandbits(128):032x}"
        body: dict[str, Any] = {"batch_id": batch}
        if self._batches and draw.random() < 0.2:
            of, path = self._batches.pop(), "/ui/v1/assertions/undo"
            body["of"], size = of, 0
        else:
            images = dict(draw.sample(self._recorded, min(len(self._recorded), draw.randint(1, 4))))
            path, size, of = "/ui/v1/assertions", len(images), ""
            body["statements"] = [
                {"action": "keep", "media_sha256": sha, "inference_key": key, "rank": 0} for sha, key in images.items()
            ]
        for _ in range(TRIES):
            reply = self.ask(path, self.keys.current, json=body)
            if reply.outcome == "ok":
                self.books.write("statements", batch=batch, size=size, of=of, added=reply.body["added"])
                if not of:
                    self._batches.append(batch)
                return
            if reply.status not in REPEATABLE or self._ended.wait(reply.wait_s):
                break
        self.books.write("statements_unknown", batch=batch, size=size, of=of)

    def _try_revoked(self, draw: Draw) -> None:
        if token := self.keys.revoked:
            reply = self.ask("/v1/models", token)
            if reply.outcome == "ok":
                self.books.write("revoked_accepted", token=sha256(token.encode()), sent=reply.sent)

    # promotions

    def _promoter(self, draw: Draw) -> None:
        while not self._ended.wait(draw.expovariate(1 / PROMOTE_EVERY_S)):
            self.promote(draw.choice(sorted(FLOORS)))

    def promote(self, version: str) -> None:
        reply = self.ask(f"/v1/models/{MODEL}/promote", self.host.secret, json={"version": version})
        outcome = reply.outcome
        if outcome == "ok" and reply.body["state"] != "done":
            outcome = "unknown"
        self.books.write("promote", version=version, asked=reply.sent, outcome=outcome)

    # operators

    def _operator(self, draw: Draw) -> None:
        kinds: tuple[tuple[Callable[[Draw], object], float], ...] = (
            (self._ingest, 4),
            (self._run, 6),
            (self._publish, 4),
            (self._roll_back, 2),
            (self._filter, 2),
            (self._compact, 2),
            (self._prune, 1),
            (self._export, 3),
        )
        while not self._ended.wait(draw.expovariate(1 / PAUSE_S)):
            _one_of(draw, kinds)(draw)

    def _ingest(self, draw: Draw, count: int = NEW_PICTURES) -> None:
        added = []
        for _ in range(count):
            data = self._picture(draw.choice(sorted(PHOTOS)))
            file = self.archive / draw.choice(("east", "west")) / f"{self._number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            added.append(sha256(data))
        if self.host.command("ingest", str(self.archive)).code == 0:
            self.books.write("ingest", pictures=added)

    def _run(self, draw: Draw, version: str = "") -> str:
        version = version or draw.choice(sorted(FLOORS))
        asked = self.books.now()
        done = self.host.command("reprocess", "--model", f"{MODEL}@{version}")
        outcome = "ok" if done.code == 0 and done.out else "unknown"
        report = done.out or {}
        self.books.write(
            "run",
            version=version,
            asked=asked,
            outcome=outcome,
            run_id=report.get("run_id"),
            accounting=report.get("accounting"),
            published=report.get("published"),
        )
        return outcome

    def _publish(self, draw: Draw) -> None:
        what = f"{MODEL}@{draw.choice(sorted(FLOORS))}"
        body = {"override": "chaos"}
        self._view("publish", self.ask(f"/runs/{what}/publish", self.host.secret, json=body))

    def _roll_back(self, draw: Draw) -> None:
        self._view("rollback", self.ask("/runs/rollback", self.host.secret, json={}))

    def _view(self, what: str, reply: Reply) -> None:
        view = reply.body["view"] if reply.outcome == "ok" else {}
        changed = bool(view) and reply.body["changed"]
        fields = {name: view.get(name) for name in ("serial", "inference_key", "layers")}
        self.books.write("view", what=what, asked=reply.sent, outcome=reply.outcome, changed=changed, **fields)

    def _filter(self, draw: Draw) -> None:
        config = ("--set", f"min_area_frac={draw.choice((0.01, 0.03, 0.1))}")
        asked = self.books.now()
        self.host.command("filters", "run", "small-size", *config, "--show")
        self.books.write("view", what="layer", asked=asked, outcome="unknown", changed=None, serial=None)

    def _compact(self, draw: Draw) -> None:
        self.host.command("compact", "--min-files", "2", "--vacuum")

    def _prune(self, draw: Draw) -> None:
        done = self.host.command("runs", "prune", "--keep-days", "0", "--yes")
        for use in done.out or ():
            self.books.write("pruned", key=use["inference_key"])

    def _export(self, draw: Draw) -> None:
        self.export(self.host.folder / f"export-{self._number}-{draw.getrandbits(32)}.parquet", "results")

    def export(self, file: Path, relation: str) -> bool:
        asked = self.books.now()
        done = self.host.command("export", relation, str(file))
        if done.code == 0:
            self.books.write("export", file=str(file), relation=relation, asked=asked)
        return done.code == 0

    def _picture(self, photo: str) -> bytes:
        with self._lock:
            self._number += 1
            data = picture_of(PHOTOS[photo], self._number)
        self.books.write("picture", sha=sha256(data), photo=photo)
        return data


def _facts(reply: Reply) -> dict[str, Any]:
    model = reply.body["model"]
    digest = digest_of_answer(reply.body["detections"])
    return {
        "sent": reply.sent,
        "done": reply.done,
        "version": model["version"],
        "key": model["inference_key"],
        "digest": digest,
    }


def _one_of(draw: Draw, kinds: Sequence[tuple[Callable[[Draw], object], float]]) -> Callable[[Draw], object]:
    return draw.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]


def until(condition: Callable[[], bool], limit_s: float) -> float | None:
    """Return the seconds until the condition holds; None if it does not within `limit_s`."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < limit_s:
        if condition():
            return round(time.monotonic() - began_s, 1)
        time.sleep(0.5)
    return None
