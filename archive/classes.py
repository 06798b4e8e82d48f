"""Names of a classifier's classes, and which classifiers have classified what.

(names, lineage of each) --write_classes--> digest, <tables>/labels/<digest>.json, written once --read_classes--> both
A row of `classifications` has the digest and a number for each class; which number is which class stands in the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from archive.dataset import dataset
from archive.schemas import CLASSIFICATIONS
from archive.tables import Tables
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder, require_create

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CLASSIFIERS = """
    select classifier_key, any_value(model_name), any_value(model_version), any_value(margin_frac),
        any_value(labels_digest), count(*) filter (status = 'ok')
    from classifications where inference_key = $key
    group by classifier_key order by max(finished_at) desc, classifier_key
"""


@dataclass(frozen=True, slots=True)
class Classified:
    """What one classifier, on crops with one margin, has said of the detections of an inference key."""

    classifier_key: str
    model_name: str
    model_version: str
    margin_frac: float
    labels_digest: str
    detections: int

    def __str__(self) -> str:
        return (
            f"{self.model_name}@{self.model_version} with margin {self.margin_frac:g} "
            f"({self.classifier_key[:12]}…, {self.detections} detections)"
        )


def classes_digest(names: Sequence[str], lineage: Sequence[str]) -> str:
    """64 hex digits: of both, for what a filter says of a class follows from both."""
    return hashlib.sha256(_text(names, lineage)).hexdigest()


def write_classes(tables_url: str, names: Sequence[str], lineage: Sequence[str]) -> str:
    """Keep the names; their digest. `lineage`: of each class, coarsest first ("mammalia;carnivora;…"), or "".

    Raises StorageUnreachable, StorageUnsafe.
    """
    if len(names) != len(lineage):
        raise ValueError(f"{len(names)} names, but {len(lineage)} lineages")
    digest = classes_digest(names, lineage)
    require_create(tables_url)
    with contextlib.suppress(FileExistsError):  # the same bytes: the name says so
        _folder(tables_url).create(f"{digest}.json", _text(names, lineage))
    return digest


def read_classes(tables_url: str, digest: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and lineages, in the order of the logits. Raises BadRequest, StorageUnreachable."""
    if not _DIGEST.fullmatch(digest):
        raise BadRequest(f"'{digest}' is no digest of labels: 64 hex digits, see classifications")
    folder = _folder(tables_url)
    try:
        text = folder.read(f"{digest}.json")
    except FileNotFoundError as error:
        raise StorageUnreachable(
            f"{folder.url}/{digest}.json is not there: the names of a classifier's classes"
        ) from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise StorageUnreachable(f"{folder.url}/{digest}.json is damaged: its digest is another")
    found = json.loads(text)
    return tuple(found["names"]), tuple(found["lineage"])


def classifiers(tables: Tables, inference_key: str) -> list[Classified]:
    """Those that have classified detections of this inference key, the one that worked last first.

    Raises StorageUnreachable.
    """
    table = tables.existing("classifications")
    if table is None:
        return []
    try:
        with duckdb.connect() as sql:
            sql.register("classifications", dataset(table, CLASSIFICATIONS))
            found = sql.execute(_CLASSIFIERS, {"key": inference_key}).fetchall()
    except (duckdb.Error, OSError) as error:
        raise StorageUnreachable(
            f"cannot read the classifications in {tables.url}: {error}"
        ) from error
    return [Classified(*row) for row in found]


def only_classifier(tables: Tables, inference_key: str) -> str:
    """The classifier key, where there is no choice. Raises BadRequest that lists what there is."""
    found = classifiers(tables, inference_key)
    if not found:
        raise BadRequest(
            f"no classifier has seen detections of inference key {inference_key[:12]}…; first: resight classify "
            "--model NAME"
        )
    if len(found) > 1:
        there = "; ".join(f"{one.classifier_key} is {one}" for one in found)
        raise BadRequest(f"several classifiers have seen these detections, name one: {there}")
    return found[0].classifier_key


def _folder(tables_url: str) -> Folder:
    return Folder(f"{tables_url}/labels")


def _text(names: Sequence[str], lineage: Sequence[str]) -> bytes:
    said = {"lineage": list(lineage), "names": list(names)}
    return json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
