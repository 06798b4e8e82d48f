"""Store lists of image digests that are too long for a command line: <tables>/scopes/<sha256 of the list>.txt.

A file of digests --name_ids--> the sha256 of the list, for the spec of a run --read_ids--> the digests.
The list is written when a run is submitted, so that a plan writes nothing.
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
    """Return the name of the list of sha256 digests in a text file, one per line; equal lists have the same name.

    This process can read the list at once, others after `keep_ids`. Raises BadRequest that names the invalid line.
    """
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"cannot read {file}: {error}") from error
    digests: set[str] = set()
    for number, line in enumerate(lines, 1):
        word = line.strip().lower()
        if not word or (number == 1 and word == HEADER):
            continue
        if not _DIGEST.fullmatch(word):
            raise BadRequest(
                f"{file}, line {number}: '{word[:80]}' is not a sha256; make a list with "
                "'resight sql \"select media_sha256 from media where …\" --format csv'"
            )
        digests.add(word)
    if not digests:
        raise BadRequest(f"{file} has no line with a sha256")
    data = "".join(f"{digest}\n" for digest in sorted(digests)).encode()
    name = hashlib.sha256(data).hexdigest()
    _named[name] = data
    return name


def keep_ids(tables_url: str, name: str | None) -> None:
    """Write a list where the run's other processes find it; None and lists of other processes are ignored."""
    if name in _named:
        with contextlib.suppress(FileExistsError):
            Folder(f"{tables_url}/scopes").create(f"{name}.txt", _named[name])


def read_ids(tables_url: str, name: str) -> pa.Array:
    """Return the digests of a list. Raises BadRequest if it is not stored there."""
    try:
        data = _named.get(name) or Folder(f"{tables_url}/scopes").read(f"{name}.txt")
    except FileNotFoundError as error:
        raise BadRequest(f"no list of images {name} in {tables_url}/scopes") from error
    return pa.array(data.decode().split(), pa.string())
