"""Uploads to both hosts are kept and recorded as by a run, even if a process is killed meanwhile."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx2
import pytest

from archive.delta.tables import Tables
from tests.cluster.hosts import OF_THE_RUN, Cluster, Host, kill, wait_for
from tests.fixtures_local import rows_of

pytestmark = pytest.mark.cluster
SENT = 12


def pictures(photo: Any, mark: str) -> list[bytes]:
    """Photographs of several kinds, each with a comment of its own, so with a digest of its own."""
    jpegs = [photo(name) for name in ("cat", "person")]
    return [commented(jpegs[i % 2], f"{mark} {i}".encode()) for i in range(SENT)]


def commented(jpeg: bytes, words: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words + jpeg[2:]


def send(host: Host, body: bytes, **query: Any) -> dict[str, Any]:
    asked = {"model": "ssdlite-coco", "camera": "north", **query}
    answer = httpx2.post(f"{host.url}/v1/images", content=body, params=asked, timeout=60)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def of(tables: Tables, name: str, bodies: list[bytes]) -> dict[str, dict[str, Any]]:
    """Rows of these pictures by digest; each must have one at most."""
    digests = {hashlib.sha256(body).hexdigest() for body in bodies}
    rows = [row for row in rows_of(tables, name) if row["media_sha256"] in digests]
    by_digest = {row["media_sha256"]: row for row in rows}
    assert len(rows) == len(by_digest)
    return by_digest


def test_what_is_recorded_is_what_a_run_would_have_written(host: Host, photo: Any, tmp_path: Path) -> None:
    bodies = pictures(photo, "run")
    told = [send(host, body, wait_s=30 * (i + 1 == SENT)) for i, body in enumerate(bodies)]
    assert told[-1]["recorded"], "its rows were to be waited for"
    wait_for(lambda: len(of(host.tables, "results", bodies)) == SENT)

    elsewhere = str(tmp_path / "tables")
    root = told[0]["media"]["source_root"]
    assert host.resight("ingest", root, tables=elsewhere).returncode == 0
    host.reprocess("--model", "ssdlite-coco", "--here", tables=elsewhere)
    for name, of_the_moment in (("media", {"ingested_at", "catalogued_at"}), ("results", OF_THE_RUN | {"run_id"})):
        recorded, run = of(host.tables, name, bodies), of(Tables(elsewhere), name, bodies)
        assert len(run) == SENT
        for digest, row in run.items():
            unlike = {c for c in row if row[c] != recorded[digest][c]}
            assert unlike <= of_the_moment, (name, unlike)

    again = host.resight("ingest", root)
    assert again.returncode == 0
    report = host.reprocess("--model", "ssdlite-coco", "--path", "north/*")
    assert report["counts"]["reused"] == report["counts"]["requested"] >= SENT


def test_the_rows_that_the_recorder_held_when_it_was_killed_are_there(cluster: Cluster, photo: Any) -> None:
    send(cluster, commented(photo("cat"), b"first"), wait_s=30)  # so that the process is there
    (recorder,) = cluster.processes("ray::RecorderActor")
    assert recorder.environ()["ARROW_DEFAULT_MEMORY_POOL"] == "system"
    bodies = pictures(photo, "killed")
    for number, body in enumerate(bodies):
        send(cluster, body)
        if number == SENT // 2:
            kill(cluster.processes("ray::RecorderActor"))
    wait_for(lambda: len(of(cluster.tables, "results", bodies)) == SENT)
    assert len(of(cluster.tables, "media", bodies)) == SENT


def test_what_dies_with_a_replica_is_brought_by_an_ingest_and_a_run(host: Host, photo: Any) -> None:
    """All processes that know of the rows die: the files are what is left."""
    bodies = pictures(photo, "replica")
    for body in bodies:
        send(host, body)
    host.kill_replica()
    if isinstance(host, Cluster):
        kill(host.processes("ray::RecorderActor"))
    host.await_replica(photo("cat"))
    before = of(host.tables, "results", bodies)
    root = host.settings.uploads_url
    assert host.resight("ingest", root).returncode == 0
    host.reprocess("--model", "ssdlite-coco", "--path", "north/*", "--here")
    assert set(of(host.tables, "media", bodies)) == set(of(host.tables, "results", bodies))
    assert len(of(host.tables, "results", bodies)) == SENT
    assert len(before) < SENT, "nothing was lost: it shows nothing"


def test_what_was_sent_is_found_and_what_cannot_be_answered_says_why(host: Host, photo: Any) -> None:
    told = send(host, commented(photo("cat"), b"to be found"), camera="pond", wait_s=30)

    def ask(**query: Any) -> httpx2.Response:
        return httpx2.get(f"{host.url}/v1/images", params=query, timeout=60)

    (image,) = ask(camera="pond").json()["images"]
    assert image["path"] == told["media"]["path"]
    assert ask(camera="pond", since="2099-01-01").json()["images"] == []
    assert "unknown camera 'nowhere'" in ask(camera="nowhere").json()["detail"]
    wrong = ask(view="nobody")
    assert wrong.status_code == 400
    assert "nothing is published as 'nobody'" in wrong.json()["detail"]
    if isinstance(host, Cluster):
        kill(host.processes("ray::FinderActor"))
    wait_for(lambda: ask(camera="pond").status_code == 200)
