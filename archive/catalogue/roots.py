"""Check that archives overlap neither each other nor Resight's own folders, and store how they are read.

A file below two roots would have two rows in `media` and two paths, perhaps with different cameras.
<tables>/templates/<sha256 of the root>.json has the path template that was last given for an archive, and
whether ExifTool reads it. It also has how clips are sampled.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from archive.catalogue.clips import Sampling
from archive.catalogue.listing import HIDDEN
from archive.catalogue.media import DEFAULT_TEMPLATE
from archive.delta.snapshot import dataset
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder, absolute


def contains(outer: str, inner: str) -> bool:
    """Return whether `inner` is `outer`, or a folder that a listing of `outer` enters; both are absolute."""
    outer, inner = (place.rstrip("/") for place in (outer, inner))
    return inner == outer or (inner.startswith(f"{outer}/") and not HIDDEN.search(inner[len(outer) + 1 :]))


def require_apart(root: str, archives: Iterable[str]) -> None:
    """Raise BadRequest if `root` is inside another archive, or contains one."""
    for other in sorted(set(archives) - {root}):
        again, retire = (f"resight ingest {o}{shlex.quote(other)}" for o in ("", "--retire "))
        if contains(other, root):
            raise BadRequest(
                f"{root} is inside the archive {other}, so its files would be counted twice: '{again}' finds "
                f"new files in it. To make it a separate archive, run '{retire}' first; results are kept"
            )
        if contains(root, other):
            raise BadRequest(
                f"{root} contains the archive {other}, so its files would be counted twice: ingest the other "
                f"folders one by one. To replace it by {root}, run '{retire}' first; results are kept"
            )


def require_outside(tables: Tables, folder: str) -> None:
    """Raise BadRequest if a folder is, contains, or is inside an archive: files in it would be catalogued as pictures.

    The condition skips most of a large catalogue; its upper bound is the character after "/".
    """
    root = ds.field("source_root")
    near = root.isin([folder, *map(str, Path(folder).parents)]) | ((root > f"{folder}/") & (root < f"{folder}0"))
    present = near & ds.field("missing_since").is_null()
    rows = dataset(tables.existing("media"), MEDIA).to_table(columns=["source_root"], filter=present)
    for other in rows["source_root"].unique().to_pylist():
        if contains(other, folder) or contains(folder, other):
            raise BadRequest(
                f"{folder} and the archive {other} overlap, so an ingest would catalogue what is written there as "
                "pictures: use another folder"
            )


def require_foreign(url: str, home: str, places: Iterable[str], uploads: str) -> None:
    """Raise BadRequest if an archive contains Resight's own folders, or is inside one.

    Other folders below `home` may be archives, and so may the whole folder of uploads.
    """
    root = absolute(url)
    own = [place for place in (*places, uploads) if contains(root, place) or contains(place, root)]
    if contains(root, home) or (own and root != uploads):
        raise BadRequest(
            f"{root} cannot be an archive, because Resight keeps its own files in {own[0] if own else home}: "
            "ingest other folders, or move Resight with RESIGHT_HOME"
        )


def kept(tables_url: str, root: str) -> tuple[str, bool, Sampling]:
    """Return the template of an archive, or the default, whether ExifTool reads it, and how its clips are sampled.

    Raises StorageUnreachable.
    """
    values: dict[str, Any] = _kept(tables_url, root)
    sampling = Sampling(*(float(values.get(name, 0)) for name in Sampling._fields))
    return str(values.get("template", DEFAULT_TEMPLATE)), values.get("exiftool") is True, sampling


def keep(
    tables_url: str,
    root: str,
    template: str | None = None,
    exiftool: bool | None = None,
    sampling: Sampling | None = None,
) -> None:
    """Store what is given for the next ingests of the archive. Raises StorageUnreachable."""
    given = {"template": template, "exiftool": exiftool, **(sampling._asdict() if sampling else {})}
    changed = {name: value for name, value in given.items() if value is not None}
    if changed:
        values = {"root": root} | _kept(tables_url, root) | changed
        data = json.dumps(values, ensure_ascii=False).encode()
        Folder(f"{tables_url}/templates").write(_file(root), data)


def _kept(tables_url: str, root: str) -> dict[str, object]:
    folder, name = Folder(f"{tables_url}/templates"), _file(root)
    try:
        values = json.loads(folder.read(name))
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        return values
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError) as error:
        raise StorageUnreachable(f"cannot read {folder.url}/{name}: {error}") from error


def _file(root: str) -> str:
    return f"{hashlib.sha256(root.encode()).hexdigest()}.json"
