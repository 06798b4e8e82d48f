"""Model stores whose clusters write results into the tables: the aliases of each keep results from a prune.

<tables>/stores/<sha256 of the file>.json, written once for each store, by runs and by the recorder of uploads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket

from model_store.errors import StorageUnreachable
from model_store.storage import Folder, absolute, is_local, require_create


def address(store_url: str) -> str:
    """Return the URL of a store, or `host:/path` of one on a local disk: the same path elsewhere is another store."""
    place = absolute(store_url)
    return f"{socket.gethostname()}:{place}" if is_local(store_url) else place


def remember_store(tables_url: str, store_url: str) -> None:
    """Record that results of models of this store are in the tables. Raises StorageUnreachable, StorageUnsafe."""
    data = json.dumps({"store": address(store_url)}, ensure_ascii=False).encode()
    require_create(tables_url)
    with contextlib.suppress(FileExistsError):  # the same bytes: the name says so
        _folder(tables_url).create(f"{hashlib.sha256(data).hexdigest()}.json", data)


def other_stores(tables_url: str, store_url: str) -> list[str]:
    """Return the recorded stores except this one, as URLs or paths of this machine, sorted.

    Raises StorageUnreachable for one on the disk of another machine: its aliases cannot be read.
    """
    folder, here = _folder(tables_url), f"{socket.gethostname()}:"
    found: list[str] = []
    for name in folder.names():
        if not name.endswith(".json"):
            continue
        try:
            store = str(json.loads(folder.read(name))["store"])
        except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
            raise StorageUnreachable(f"{folder.url}/{name} cannot be read: {error}") from error
        if store == address(store_url):
            continue
        if "://" not in store and not store.startswith(here):
            raise StorageUnreachable(
                f"model store {store} also has results in {tables_url}, and its aliases cannot be read from here: "
                f"name all stores that count with --store, or remove {folder.url}/{name} if it is gone"
            )
        found.append(store.removeprefix(here))
    return sorted(found)


def _folder(tables_url: str) -> Folder:
    return Folder(f"{tables_url}/stores")
