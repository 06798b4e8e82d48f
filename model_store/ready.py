"""Parse and format READY, the list of a version's files: bytes <-> file names to sha256 digests.

Each name becomes a path when a version is read, pulled or published. `is_file_name` is the only rule for names, so
that no list can refer to a file outside its version's folder.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping

from model_store.errors import ModelRefused

READY = "READY"
CLAIM = "CLAIM"
"""A copy of READY, created before any other file: it reserves the version for exactly these files."""
MAX_READY_BYTES = 2**20
MAX_FILES = 1000
MAX_NAME_BYTES = 200
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORBIDDEN = frozenset('\\:*?"<>|')
"""Separators, drives, patterns and queries of a file system or URL."""


def parse_ready(data: bytes, where: str) -> dict[str, str]:
    """Return file names and their digests. Raises ModelRefused with a message that begins with `where`."""
    try:
        files = json.loads(data)["files"]
        digests = {str(name): str(digest) for name, digest in files.items()}
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelRefused(f"{where}: {READY} is damaged ({str(error)[:100]}); pull the version again") from error
    _require_digests(digests, where)
    return digests


def format_ready(digests: Mapping[str, str], where: str) -> bytes:
    """Return the bytes that `parse_ready` reads. Raises ModelRefused for invalid names."""
    _require_digests(digests, where)
    return json.dumps({"files": dict(sorted(digests.items()))}, indent=1).encode()


def is_file_name(name: str) -> bool:
    """Return True for a relative path of printable characters that stays below its folder on every system."""
    return (
        name.isprintable()
        and len(name.encode()) <= MAX_NAME_BYTES
        and not _FORBIDDEN & set(name)
        and all(part.strip(" .") for part in name.split("/"))
    )


def _require_digests(digests: Mapping[str, str], where: str) -> None:
    """Raise ModelRefused for too many files, invalid names or digests, and names that share a file on some disks."""
    if len(digests) > MAX_FILES:
        raise ModelRefused(f"{where}: {READY} lists {len(digests)} files; the limit is {MAX_FILES}")
    taken = {READY.casefold(), CLAIM.casefold()}
    for name, digest in digests.items():
        if not is_file_name(name):
            raise ModelRefused(
                f"{where}: {READY} lists {name[:MAX_NAME_BYTES]!r}, which is not a file name inside a version: use "
                f"printable characters except {' '.join(sorted(_FORBIDDEN))}, no '..', {MAX_NAME_BYTES} bytes at most"
            )
        if not _SHA256.fullmatch(digest):
            raise ModelRefused(f"{where}: {READY} lists {name} with the invalid sha256 {digest[:80]!r}")
        plain = unicodedata.normalize("NFC", name).casefold()
        if plain in taken:
            raise ModelRefused(f"{where}: {READY} lists the duplicate name {name}; rename the file")
        taken.add(plain)
