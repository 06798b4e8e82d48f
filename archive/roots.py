"""Where archives may be: apart from one another, and from what Resight itself keeps; and how each names its cameras.

A file below two roots would have two rows in `media` and, named by two paths, perhaps two cameras.
<tables>/templates/<sha256 of the root>.json: the path template that was last given for an archive.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable

from archive.listing import HIDDEN
from archive.media import DEFAULT_TEMPLATE
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder, absolute


def contains(outer: str, inner: str) -> bool:
    """Return whether a listing of `outer` enters `inner` or is of the same place; both are absolute."""
    outer, inner = (place.replace("s3a://", "s3://", 1).rstrip("/") for place in (outer, inner))
    return inner == outer or (
        inner.startswith(f"{outer}/") and not HIDDEN.search(inner[len(outer) + 1 :])
    )


def require_apart(root: str, archives: Iterable[str]) -> None:
    """Raise BadRequest if an archive other than `root` contains it, or lies in it."""
    for other in sorted(set(archives) - {root}):
        again, retire = (f"resight ingest {o}{shlex.quote(other)}" for o in ("", "--retire "))
        if contains(other, root):
            raise BadRequest(
                f"{root} lies in the archive {other}, so its files would be counted twice: '{again}' finds "
                f"what is new in it. To make it an archive of its own: '{retire}' first; results are kept"
            )
        if contains(root, other):
            raise BadRequest(
                f"{root} contains the archive {other}, whose files would be counted twice: ingest the folders "
                f"beside that one. To put {root} in its place: '{retire}' first; results are kept"
            )


def require_foreign(url: str, home: str, places: Iterable[str], uploads: str) -> None:
    """Raise BadRequest for an archive that holds what Resight itself keeps, or lies in it.

    Other folders below `home` may be archives, and so may the whole folder of uploads.
    """
    root = absolute(url)
    ours = [one for one in (*places, uploads) if contains(root, one) or contains(one, root)]
    if contains(root, home) or (ours and root != uploads):
        raise BadRequest(
            f"{root} cannot be an archive: Resight keeps its own files in {ours[0] if ours else home}. Ingest the "
            "folders of pictures beside it, or move Resight with RESIGHT_HOME"
        )


def kept_template(tables_url: str, root: str) -> str:
    """Return the template of an archive, or the default. Raises StorageUnreachable."""
    folder, name = Folder(f"{tables_url}/templates"), _file(root)
    try:
        return str(json.loads(folder.read(name))["template"])
    except FileNotFoundError:
        return DEFAULT_TEMPLATE
    except (ValueError, LookupError, TypeError) as error:
        raise StorageUnreachable(f"{folder.url}/{name} cannot be read: {error}") from error


def keep_template(tables_url: str, root: str, template: str) -> None:
    """Keep it for the next ingests of the archive. Raises StorageUnreachable."""
    data = json.dumps({"root": root, "template": template}, ensure_ascii=False).encode()
    Folder(f"{tables_url}/templates").write(_file(root), data)


def _file(root: str) -> str:
    return f"{hashlib.sha256(root.encode()).hexdigest()}.json"
