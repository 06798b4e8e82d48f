"""constraints.txt, read."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

LOCK = Path(__file__).resolve().parent.parent / "constraints.txt"


def locked() -> dict[str, dict[Version, int]]:
    """Package -> locked version -> number of hashes; platforms may differ in the version."""
    found: dict[str, dict[Version, int]] = {}
    versions: dict[Version, int] = {}
    for line in LOCK.read_text().splitlines():
        if pin := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", line):
            versions = found.setdefault(canonicalize_name(pin[1]), {})
            version = Version(pin[2])
            versions[version] = 0
        elif "--hash=sha256:" in line:
            versions[version] += 1
    return found
