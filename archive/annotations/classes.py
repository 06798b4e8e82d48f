"""Store the class names of classifiers, and list the classifiers of an inference key.

(names, lineage of each) --write_classes--> digest, <tables>/labels/<digest>.json, written once --read_classes--> both.
A row of `classifications` has the digest and a logit for each class, in the order of the names in the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from archive.delta.snapshot import open_tables
from archive.delta.tables import Tables
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder, require_create

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CLASSIFIERS = """
    select classifier_key, array_to_string(list_sort(list(distinct model_name || '@' || model_version)), ', '),
        any_value(margin_frac), any_value(labels_digest), count(*) filter (status = 'ok')
    from classifications where inference_key = $key
    group by classifier_key order by max(finished_at) desc, classifier_key
"""


@dataclass(frozen=True, slots=True)
class Classified:
    """A classifier, with one crop margin, and the number of `detections` of an inference key that it classified.

    `model` has each version with this key: "net@1, net@2" if they differ in nothing that decides a row.
    """

    classifier_key: str
    model: str
    margin_frac: float
    labels_digest: str
    detections: int

    def __str__(self) -> str:
        return (
            f"{self.model} with margin {self.margin_frac:g} ({self.classifier_key[:12]}…, {self.detections} detections)"
        )


def classes_digest(names: Sequence[str], lineage: Sequence[str]) -> str:
    """Return the digest (64 hex digits) of names and lineages, because filters depend on both."""
    return hashlib.sha256(_text(names, lineage)).hexdigest()


def write_classes(tables_url: str, names: Sequence[str], lineage: Sequence[str]) -> str:
    """Store the names; return their digest. A `lineage` is "" or coarsest first ("mammalia;carnivora;…").

    Raises StorageUnreachable, StorageUnsafe.
    """
    if len(names) != len(lineage):
        raise ValueError(f"{len(names)} names, but {len(lineage)} lineages")
    digest = classes_digest(names, lineage)
    require_create(tables_url)
    with contextlib.suppress(FileExistsError):  # the same bytes: the name is their digest
        _folder(tables_url).create(f"{digest}.json", _text(names, lineage))
    return digest


def read_classes(tables_url: str, digest: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and lineages, in the order of the logits. Raises BadRequest, StorageUnreachable."""
    if not _DIGEST.fullmatch(digest):
        raise BadRequest(f"invalid labels digest '{digest}': use the 64 hex digits of labels_digest in classifications")
    folder = _folder(tables_url)
    try:
        text = folder.read(f"{digest}.json")
    except FileNotFoundError as error:
        raise StorageUnreachable(f"class names of a classifier not found: {folder.url}/{digest}.json") from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise StorageUnreachable(f"{folder.url}/{digest}.json is damaged: its digest differs from its name")
    stored = json.loads(text)
    return tuple(stored["names"]), tuple(stored["lineage"])


def classifiers(tables: Tables, inference_key: str) -> list[Classified]:
    """Return the classifiers of this inference key's detections, the latest first. Raises StorageUnreachable."""
    try:
        with open_tables(tables, "classifications") as sql:
            rows = sql.execute(_CLASSIFIERS, {"key": inference_key}).fetchall()
    except (duckdb.Error, OSError) as error:
        raise StorageUnreachable(f"cannot read the classifications in {tables.url}: {error}") from error
    return [Classified(*row) for row in rows]


def only_classifier(tables: Tables, inference_key: str) -> str:
    """Return the key of the only classifier. Raises BadRequest if there is none, or several (which it lists)."""
    candidates = classifiers(tables, inference_key)
    if not candidates:
        raise BadRequest(
            f"no classifications for inference key {inference_key[:12]}…: run resight classify --model NAME first"
        )
    if len(candidates) > 1:
        listed = "; ".join(f"{one.classifier_key} is {one}" for one in candidates)
        raise BadRequest(f"several classifiers for these detections, name one: {listed}")
    return candidates[0].classifier_key


def _folder(tables_url: str) -> Folder:
    return Folder(f"{tables_url}/labels")


def _text(names: Sequence[str], lineage: Sequence[str]) -> bytes:
    classes = {"lineage": list(lineage), "names": list(names)}
    return json.dumps(classes, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
