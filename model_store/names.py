"""How a model is named.

ref     := name | name "@" version | name ":" alias      "ssdlite-coco", "ssdlite-coco@1", "…:canary"
name    := [a-z0-9] [a-z0-9._-]*     version := [A-Za-z0-9] [A-Za-z0-9._+-]*     alias := as name
A bare name means its alias `production`; where that is not set, the only READY version. Versions are never ordered:
aliases decide. Who names none when a model is added gets the file's name, and whole numbers that go up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from model_store.errors import BadRequest

DEFAULT_ALIAS = "production"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
MAX_QUOTED = 100
"""Characters of what a sender wrote that an error or a log line repeats."""
REF = rf"{NAME.pattern}(@{VERSION.pattern}|:{NAME.pattern})?"
"""As documentation shows it; `parse_ref` tells the parts."""
_REF = re.compile(
    rf"(?P<name>{NAME.pattern})(@(?P<version>{VERSION.pattern})|:(?P<alias>{NAME.pattern}))?"
)


@dataclass(frozen=True, slots=True, order=True)
class VersionId:
    """An exact version: `name@version`."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What a caller wrote: exactly one of version and alias is set."""

    name: str
    version: str | None
    alias: str | None


def parse_ref(text: str) -> ModelRef:
    """Raises BadRequest when `text` is not a model reference."""
    match = _REF.fullmatch(text)
    if not match:
        raise BadRequest(
            f"'{text[:MAX_QUOTED]}' is not a model; write name, name@version or name:alias "
            "(lower-case letters, digits, '.', '_' and '-')"
        )
    version, alias = match["version"], match["alias"]
    return ModelRef(match["name"], version, alias if version or alias else DEFAULT_ALIAS)


def version_id(name: str, version: str) -> VersionId:
    """Raises BadRequest when either part breaks the grammar (or could leave its folder)."""
    if not NAME.fullmatch(name):
        raise BadRequest(f"'{name[:MAX_QUOTED]}' is not a model name: use {NAME.pattern}")
    if not VERSION.fullmatch(version):
        raise BadRequest(f"'{version[:MAX_QUOTED]}' is not a version: use {VERSION.pattern}")
    return VersionId(name, version)


def parse_version(text: str) -> VersionId:
    """`name@version` exactly. Raises BadRequest for anything else."""
    ref = parse_ref(text)
    if ref.version is None:
        raise BadRequest(f"'{text}' names no version; write {ref.name}@VERSION")
    return VersionId(ref.name, ref.version)


def name_of_file(stem: str) -> str:
    """A model's name out of that of its file: "Höhle v2 (best)" is "hohle-v2-best".

    Raises BadRequest when nothing is left of it.
    """
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", plain).lstrip("._-")[:64].rstrip("._-")
    if not NAME.fullmatch(name):
        raise BadRequest(f"no name can be made of the file's, '{stem}': give one with --name")
    return name


def number_of(version: VersionId) -> int:
    """Of a version that is a whole number as `next_version` counts them; 0 for others."""
    whole = re.fullmatch(r"[1-9][0-9]{0,8}", version.version)
    return int(version.version) if whole else 0


def next_version(name: str, taken: Iterable[str]) -> VersionId:
    """One more than the highest whole number of the versions taken; 1 when there is none."""
    return VersionId(name, str(1 + max((number_of(VersionId(name, v)) for v in taken), default=0)))
