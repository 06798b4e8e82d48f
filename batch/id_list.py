"""Lists of contents that are too long for a command line: <tables>/scopes/<sha256 of the list>.txt.

A file of digests --name_ids--> its sha256, which is what the spec of a run holds --read_ids--> the digests
It is kept when a run is submitted, so that a plan writes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

import pyarrow as pa

from model_store.errors import BadRequest
from model_store.storage import Folder

HEADER = "media_sha256"
_named: dict[str, bytes] = {}
_DIGEST = re.compile(r"[0-9a-f]{64}")


def name_ids(file: Path) -> str:
    """The name of the list of sha256 digests in a text file, one a line; the same list has the same name.

    This process knows it from now on; others once it is kept. Raises BadRequest that names the line.
    """
    try:
        lines = file.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"cannot read {file}: {error}") from error
    found: set[str] = set()
    for number, line in enumerate(lines, 1):
        word = line.strip().lower()
        if not word or (number == 1 and word == HEADER):
            continue
        if not _DIGEST.fullmatch(word):
            raise BadRequest(
                f"{file}, line {number}: '{word[:80]}' is no sha256; such a list comes from "
                "'resight sql \"select media_sha256 from media where …\" --format csv'"
            )
        found.add(word)
    if not found:
        raise BadRequest(f"{file} has no line with a sha256")
    data = "".join(f"{digest}\n" for digest in sorted(found)).encode()
    name = hashlib.sha256(data).hexdigest()
    _named[name] = data
    return name


def keep_ids(tables_url: str, name: str | None) -> None:
    """Where the run's other processes find it; None and lists of other processes are left alone."""
    if name in _named:
        with contextlib.suppress(FileExistsError):
            Folder(f"{tables_url}/scopes").create(f"{name}.txt", _named[name])


def read_ids(tables_url: str, name: str) -> pa.Array:
    """Raises BadRequest when the list is not kept there."""
    try:
        data = _named.get(name) or Folder(f"{tables_url}/scopes").read(f"{name}.txt")
    except FileNotFoundError as error:
        raise BadRequest(f"no list of images {name} in {tables_url}/scopes") from error
    return pa.array(data.decode().split(), pa.string())
