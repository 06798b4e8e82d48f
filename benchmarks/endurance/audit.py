"""Compare the books of a chaos run with the tables, files and views that exist. No product code reads them here.

stored = read(tables_url, uploads_url, options); audit(entries, stored, repaired) -> {account: [problem, …]}

`repaired`: an ingest of the uploads and a run of each version followed, which add the rows that a crash may lose
(docs/reference/uploads.md). Before, only rows that an answer reported as recorded must exist.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from benchmarks.endurance.books import digest_of_row, sha256

ACCOUNTS = ("lost", "doubled", "mixed", "open accounts", "refused wrongly", "accepted wrongly")
REVOKED_S = 6.0
EXPECTED = (0, 401, 408, 409, 429, 503, 507)
"""Statuses that faults may cause; 0 is a broken connection or no answer. 401 only with a revoked token.

A publication without a sealed run, a rollback of the first one, and a statement about a pruned detection are 400.
"""
NOTHING_DUE = "ok 0 + empty 0 + failed 0"
"""Accounts of a run without work, which is not recorded."""
STARTING = "/-/routes for available routes"
"""Text of the 404 of a cluster that starts (docs/reference/http.md)."""
Entry = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """Everything that exists at the end. `views`: serial -> publication; `files`: path of an upload -> its digest."""

    media: Sequence[Entry] = ()
    results: Sequence[Entry] = ()
    assertions: Sequence[Entry] = ()
    runs: Sequence[Entry] = ()
    views: dict[int, Entry] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def read(tables_url: str, uploads_url: str, options: dict[str, str]) -> Stored:
    tables = {name: _rows(f"{tables_url}/{name}", options) for name in ("media", "results", "assertions", "runs")}
    files, root = _files(uploads_url, options)
    uploads = {path.removeprefix(f"{root}/"): sha256(data) for path, data in files}
    views, _ = _files(f"{tables_url}/views/production", options)
    publications = [json.loads(data) for path, data in views if path.endswith(".json")]
    return Stored(**tables, views={view["serial"]: view for view in publications}, files=uploads)


def _rows(url: str, options: dict[str, str]) -> list[Entry]:
    try:
        return DeltaTable(url, storage_options=options).to_pyarrow_table().to_pylist()
    except TableNotFoundError:
        return []


def _files(url: str, options: dict[str, str]) -> tuple[Iterator[tuple[str, bytes]], str]:
    words: dict[str, Any] = {}
    if options:
        words = {"key": options["AWS_ACCESS_KEY_ID"], "secret": options["AWS_SECRET_ACCESS_KEY"]}
        words |= {"endpoint_url": options["AWS_ENDPOINT_URL"], "skip_instance_cache": True}
    system, root = fsspec.core.url_to_fs(url, **words)
    paths = system.find(root) if system.exists(root) else []
    return ((path, system.cat_file(path)) for path in paths), root


class Problems(defaultdict[str, list[str]]):
    """Problems by account."""

    def __init__(self) -> None:
        super().__init__(list, {account: [] for account in ACCOUNTS})


class Audit:
    """The books by kind of entry, and the rows by what identifies them."""

    def __init__(self, entries: Sequence[Entry], stored: Stored) -> None:
        self.stored, self.problems = stored, Problems()
        self.by: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            self.by[entry["kind"]].append(entry)
        self.photos = {entry["sha"]: entry["photo"] for entry in self.by["picture"]}
        self.truth = {(entry["key"], entry["photo"]): entry["digest"] for entry in self.by["truth"]}
        self.versions = {entry["key"]: entry["version"] for entry in self.by["truth"]}
        self.pruned = {entry["key"] for entry in self.by["pruned"]}  # the clock was a day ahead
        self.media = Counter((row["source_root"], row["path"]) for row in stored.media)
        self.catalogued = {row["media_sha256"] for row in stored.media}
        self.results = Counter((row["inference_key"], row["media_sha256"]) for row in stored.results)


def audit(entries: Sequence[Entry], stored: Stored, repaired: bool) -> dict[str, list[str]]:
    books = Audit(entries, stored)
    _answers(books)
    _uploads(books, repaired)
    _rows_are_true(books, repaired)
    _statements(books)
    _runs(books, repaired)
    _views(books)
    _exports(books)
    return dict(books.problems)


def allowed(promotions: Sequence[Entry], sent: float, done: float) -> set[str]:
    """Return the versions that may answer a request: any that an alias may have named at a time in its interval.

    A promotion is acknowledged at `at`. One with an unknown outcome may take effect until the next acknowledged one.
    """
    versions = set[str]()
    for entry in promotions:
        if entry["outcome"] == "refused" or entry["asked"] > done:
            continue
        if entry["outcome"] == "ok" and entry["at"] <= sent:
            versions = set()
        versions.add(entry["version"])
    return versions


def _answers(books: Audit) -> None:
    problems, revoked = books.problems, {entry["token"]: entry["at"] for entry in books.by["revoked"]}
    for entry in books.by["answer"]:
        known = entry["status"] in EXPECTED or (entry["status"] == 400 and entry["path"].startswith("/runs/"))
        known |= entry["status"] == 404 and STARTING in entry["what"]
        known |= entry["status"] == 400 and "assertions" in entry["path"] and bool(books.pruned)
        if not known or (entry["status"] == 401 and entry["token"] not in revoked):
            problems["refused wrongly"].append(f"{entry['at']} {entry['path']}: {entry['status']} {entry['what']}")
    for entry in books.by["revoked_accepted"]:
        if entry["sent"] > revoked[entry["token"]] + REVOKED_S:
            late_s = entry["sent"] - revoked[entry["token"]]
            problems["accepted wrongly"].append(f"{entry['at']} a token that was revoked {late_s:.1f} s before")
    for entry in books.by["command"]:
        words = " ".join(entry["words"])
        if entry["code"] == 3:
            problems["open accounts"].append(f"{entry['at']} {words}: {entry['err'][-300:]}")
        elif "Traceback" in entry["err"] or "TOO LONG" in entry["err"]:
            problems["refused wrongly"].append(f"{entry['at']} {words}: {entry['err'][-600:]}")
    for entry in (*books.by["detect"], *books.by["upload"]):
        right = books.truth.get((entry["key"], entry["photo"]))
        if entry["digest"] != right or books.versions.get(entry["key"]) != entry["version"]:
            problems["mixed"].append(f"{entry['at']} answer of version {entry['version']} has other detections")
        if entry["version"] not in allowed(books.by["promote"], entry["sent"], entry["done"]):
            problems["mixed"].append(f"{entry['at']} version {entry['version']} answered, which no alias named then")


def _uploads(books: Audit, repaired: bool) -> None:
    lost = books.problems["lost"]
    for entry in books.by["upload"]:
        sha, path = entry["media_sha256"], entry["path"]
        if books.stored.files.get(path) != sha:
            lost.append(f"{entry['at']} file of upload {path}")
        if not (repaired or entry["recorded"]):
            continue
        if not books.media[entry["source_root"], path]:
            lost.append(f"{entry['at']} media row of upload {path}")
        if not books.results[entry["key"], sha] and (repaired or entry["key"] not in books.pruned):
            lost.append(f"{entry['at']} result row of upload {path}, version {entry['version']}")


def _rows_are_true(books: Audit, repaired: bool) -> None:
    problems = books.problems
    for name, counts in (("media", books.media), ("results", books.results)):
        problems["doubled"] += [f"{count} rows of {name} {key}" for key, count in counts.items() if count > 1]
    for row in books.stored.results:
        sha, key = row["media_sha256"], row["inference_key"]
        photo = books.photos.get(sha)
        if row["status"] != "ok":
            if repaired:
                problems["lost"].append(f"result of {photo} {sha[:8]}: {row['error_code']} {row['error_detail']}")
        elif books.truth.get((key, photo or "")) != digest_of_row(row["detections"]):
            version = books.versions.get(key)
            problems["mixed"].append(f"row {sha[:8]} of {photo}, version {version}: other detections")
    pictures = [sha for entry in books.by["ingest"] for sha in entry["pictures"]]
    problems["lost"] += [f"media row of ingested {sha[:8]}" for sha in pictures if sha not in books.catalogued]
    if repaired:
        for key, version in books.versions.items():
            for sha in books.catalogued:
                if not books.results[key, sha]:
                    problems["lost"].append(f"result row of {sha[:8]}, version {version}")


def _statements(books: Audit) -> None:
    problems = books.problems
    ids = Counter(row["assertion_id"] for row in books.stored.assertions)
    problems["doubled"] += [f"{count} rows of statement {name}" for name, count in ids.items() if count > 1]
    rows = Counter(row["batch_id"] for row in books.stored.assertions if row["batch_id"])
    for entry in books.by["statements"]:
        got, wanted = rows[entry["batch"]], entry["added"]
        if got != wanted or (entry["size"] and wanted != entry["size"]):
            account = "lost" if got < max(wanted, entry["size"]) else "doubled"
            problems[account].append(
                f"{entry['at']} batch {entry['batch'][:8]}: {got} rows of {wanted}, {entry['size']}"
            )
    for entry in books.by["statements_unknown"]:
        if entry["size"] and rows[entry["batch"]] not in (0, entry["size"]):
            problems["lost"].append(f"{entry['at']} batch {entry['batch'][:8]}: a part, {rows[entry['batch']]} rows")


def _runs(books: Audit, repaired: bool) -> None:
    problems, events = books.problems, Counter((row["run_id"], row["event"]) for row in books.stored.runs)
    problems["doubled"] += [f"{count} events {event}" for event, count in events.items() if count > 1]
    last: dict[str, Entry] = {}
    for row in sorted(books.stored.runs, key=lambda row: row["event"]):
        last[row["run_id"]] = row
    for run_id, row in last.items():
        counts = row["counts"] or {}
        total = sum(counts.get(name) or 0 for name in ("ok", "empty", "failed", "reused"))
        if row["state"] == "sealed" and counts["requested"] != total:
            problems["open accounts"].append(f"run {run_id}: requested {counts['requested']}, accounted {total}")
        if repaired and row["state"] == "running":
            problems["open accounts"].append(f"run {run_id} is still running in the table")
    keys = {version: key for key, version in books.versions.items()}
    for entry in books.by["run"]:
        if entry["outcome"] != "ok":
            continue
        state = last[entry["run_id"]]["state"] if entry["run_id"] in last else None
        if state != "sealed" and (state or NOTHING_DUE not in entry["accounting"]):
            problems["lost"].append(f"{entry['at']} run {entry['run_id']}: {state}")
        key = keys[entry["version"]]
        ingested = [sha for e in books.by["ingest"] if e["at"] < entry["asked"] for sha in e["pictures"]]
        uploaded = [e["media_sha256"] for e in books.by["upload"] if e["recorded"] and e["at"] < entry["asked"]]
        missing = [sha[:8] for sha in (*ingested, *uploaded) if not books.results[key, sha]]
        if key not in books.pruned:
            problems["lost"] += [f"{entry['at']} result of run {entry['run_id']}: {sha}" for sha in missing]


def _views(books: Audit) -> None:
    """Each acknowledged publication exists, and each one that exists was requested; the newest is the current one."""
    problems, views = books.problems, books.stored.views
    acknowledged = {e["serial"]: e for e in books.by["view"] if e["outcome"] == "ok" and e["changed"]}
    for serial, entry in acknowledged.items():
        view = views.get(serial)
        if view is None:
            problems["lost"].append(f"{entry['at']} {entry['what']} number {serial}")
        elif (view["inference_key"], list(view["layers"])) != (entry["inference_key"], entry["layers"]):
            problems["mixed"].append(f"{entry['at']} {entry['what']} number {serial} shows something else")
    others = [serial for serial in views if serial not in acknowledged]
    unknown = [entry for entry in books.by["view"] if entry["outcome"] == "unknown"]
    if len(others) > len(unknown) + 1:  # the first run publishes itself
        problems["doubled"].append(f"{len(others)} publications that were not acknowledged, of {len(unknown)} requests")
    if acknowledged:
        newest = max(acknowledged)
        later = sum(entry["at"] > acknowledged[newest]["at"] for entry in unknown)
        if max(views, default=0) > newest + later:
            problems["mixed"].append(f"number {max(views)} is published, after {newest} and {later} other requests")
    if sorted(views) != list(range(1, len(views) + 1)):
        problems["lost"].append(f"numbers of publications: {sorted(views)}")


def _exports(books: Audit) -> None:
    """Exports have the rows of one view: true, once each, and with every row that was recorded before."""
    problems = books.problems
    keys = {view["inference_key"] for view in books.stored.views.values()}
    for entry in books.by["export"]:
        if entry["relation"] != "results":
            continue
        rows = pq.read_table(entry["file"], columns=["media_sha256", "inference_key", "detections"]).to_pylist()
        name = Path(entry["file"]).name
        found = Counter(row["media_sha256"] for row in rows)
        used = {row["inference_key"] for row in rows}
        problems["doubled"] += [f"{count} rows of {sha[:8]} in {name}" for sha, count in found.items() if count > 1]
        if len(used) > 1 or not used <= keys:
            problems["mixed"].append(f"{name} has {len(used)} inference keys")
        for row in rows:
            right = books.truth.get((row["inference_key"], books.photos.get(row["media_sha256"], "")))
            if right != digest_of_row(row["detections"]):
                problems["mixed"].append(f"{name}: {row['media_sha256'][:8]} has other detections")
        kept = [e for e in books.by["upload"] if e["recorded"] and e["key"] not in books.pruned]
        due = [e for e in kept if e["done"] < entry["asked"] and {e["key"]} == used]
        missing = [e["media_sha256"][:8] for e in due if not found[e["media_sha256"]]]
        problems["lost"] += [f"{sha} in {name}" for sha in missing]


def of_view(stored: Stored) -> set[tuple[str, int]]:
    """Return (media_sha256, rank) of each detection that the published view shows, computed from the tables alone.

    Statements of people are all `keep` here, which hide nothing.
    """
    view = stored.views[max(stored.views)]
    newest: dict[tuple[str, str, int], Entry] = {}
    layers = [row for row in stored.assertions if row["layer_id"] in view["layers"] and row["inference_key"]]
    for row in sorted(layers, key=lambda row: row["asserted_at"]):
        if row["inference_key"] == view["inference_key"] and row["rank"] is not None:
            newest[row["layer_id"], row["media_sha256"], row["rank"]] = row
    hidden = {(sha, rank) for (_, sha, rank), row in newest.items() if row["action"] == "suppress"}
    kept = {(row["media_sha256"], row["rank"]) for row in stored.assertions if row["layer_id"] == "human"}
    return {
        (row["media_sha256"], box["rank"])
        for row in stored.results
        if row["inference_key"] == view["inference_key"]
        for box in row["detections"] or ()
        if box["score"] >= view["label_thresholds"].get(box["label"], view["threshold"])
        and ((row["media_sha256"], box["rank"]) not in hidden or (row["media_sha256"], box["rank"]) in kept)
    }
