"""Class names: written once, read by their digest, and never partially."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archive.annotations.classes import Classified, classifiers, only_classifier, read_classes, write_classes
from archive.delta.tables import Tables
from model_store.errors import BadRequest, StorageUnreachable
from tests.fixtures_local import put_rows

NAMES = ("lion", "loup-garou é", "none")
LINEAGE = ("mammalia;carnivora;felidae;panthera;leo", "", "")


def test_what_is_written_is_read(tables: Tables) -> None:
    digest = write_classes(tables.url, NAMES, LINEAGE)
    assert read_classes(tables.url, digest) == (NAMES, LINEAGE)
    file = Path(tables.url, "labels", f"{digest}.json")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest


def test_it_is_written_once_and_other_names_elsewhere(tables: Tables) -> None:
    digest = write_classes(tables.url, NAMES, LINEAGE)
    file = Path(tables.url, "labels", f"{digest}.json")
    before = file.stat()
    assert write_classes(tables.url, list(NAMES), list(LINEAGE)) == digest
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    others = {
        write_classes(tables.url, NAMES[::-1], LINEAGE),
        write_classes(tables.url, NAMES, ("", "", "")),
        write_classes(tables.url, ("ab", "c"), ("", "")),
        write_classes(tables.url, ("a", "bc"), ("", "")),
    }
    assert len(others - {digest}) == 4
    assert len(list(file.parent.iterdir())) == 5


def test_of_several_writers_all_succeed(tables: Tables) -> None:
    with ThreadPoolExecutor(8) as threads:
        digests = set(threads.map(lambda _: write_classes(tables.url, NAMES, LINEAGE), range(16)))
    assert len(digests) == 1
    assert [p.name for p in Path(tables.url, "labels").iterdir()] == [f"{digests.pop()}.json"]


def test_what_is_not_there_or_damaged_is_said(tables: Tables) -> None:
    digest = write_classes(tables.url, NAMES, LINEAGE)
    with pytest.raises(StorageUnreachable, match="class names of a classifier not found"):
        read_classes(tables.url, "0" * 64)
    for word in ("", "../x", digest[:-1]):
        with pytest.raises(BadRequest, match="invalid labels digest"):
            read_classes(tables.url, word)
    Path(tables.url, "labels", f"{digest}.json").write_text("{}")
    with pytest.raises(StorageUnreachable, match="damaged"):
        read_classes(tables.url, digest)
    with pytest.raises(ValueError, match="3 names, but 1 lineages"):
        write_classes(tables.url, NAMES, ("",))


def put(tables: Tables, key: str, classifier: str, rank: int, ago_h: float, **more: Any) -> None:
    row = {"inference_key": key, "media_sha256": "a", "rank": rank, "classifier_key": classifier}
    row |= {"model_name": f"m-{classifier[:1]}", "model_version": "1", "margin_frac": 0.1}
    row |= {"labels_digest": f"names of {classifier[:1]}", "status": "ok", **more}
    row |= {"finished_at": datetime(2026, 5, 1, tzinfo=UTC) - timedelta(hours=ago_h)}
    put_rows(tables, "classifications", row)


def test_classifiers_are_told_the_newest_first(tables: Tables) -> None:
    assert classifiers(tables, "k") == []
    with pytest.raises(BadRequest, match="no classifications for inference key k"):
        only_classifier(tables, "k")
    put(tables, "k", "x" * 64, 0, 5)
    put(tables, "k", "x" * 64, 1, 4, status="failed", model_version="2")
    put(tables, "other", "z" * 64, 0, 0)
    assert only_classifier(tables, "k") == "x" * 64
    put(tables, "k", "y" * 64, 0, 3)
    assert classifiers(tables, "k") == [
        Classified("y" * 64, "m-y@1", 0.1, "names of y", 1),
        Classified("x" * 64, "m-x@1, m-x@2", 0.1, "names of x", 1),
    ]
    with pytest.raises(BadRequest, match=f"name one: {'y' * 64} is m-y@1 with margin 0.1"):
        only_classifier(tables, "k")
