"""Lists of contents that are too long for a command line: <tables>/scopes/<sha256 of the list>.txt.

A file of digests --keep_ids--> its sha256, which is what the spec of a run holds --read_ids--> the digests
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
_DIGEST = re.compile(r"[0-9a-f]{64}")


def keep_ids(tables_url: str, file: Path) -> str:
    """Keep the sha256 digests of a text file, one a line; the same list has the same name.

    Raises BadRequest that names the line, StorageUnreachable.
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
    with contextlib.suppress(FileExistsError):
        Folder(f"{tables_url}/scopes").create(f"{name}.txt", data)
    return name


def read_ids(tables_url: str, name: str) -> pa.Array:
    """Raises BadRequest when the list is not kept there."""
    try:
        data = Folder(f"{tables_url}/scopes").read(f"{name}.txt")
    except FileNotFoundError as error:
        raise BadRequest(f"no list of images {name} in {tables_url}/scopes") from error
    return pa.array(data.decode().split(), pa.string())
