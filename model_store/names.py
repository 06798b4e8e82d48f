"""Parse and create names of models, versions and aliases; name the first model to add.

ref     := name | name "@" version | name ":" alias      "ssdlite-coco", "ssdlite-coco@1", "…:canary"
name    := [a-z0-9] [a-z0-9._-]*     version := [A-Za-z0-9] [A-Za-z0-9._+-]*     alias := as name

A bare name refers to its alias `production`, or to the only READY version if that alias is not set. Versions are
never ordered: aliases decide. By default, a new model gets the name of its file, and consecutive whole numbers.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import BadRequest

DEFAULT_ALIAS = "production"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
SHIPPED = Path(__file__).resolve().parent.parent / "examples" / "models" / "ssdlite-coco"
"""The example model in a checkout."""
MAX_QUOTED = 100
"""Maximum characters of a sender's text that an error or a log line quotes."""
REF = rf"{NAME.pattern}(@{VERSION.pattern}|:{NAME.pattern})?"
"""Pattern for documentation; `parse_ref` splits a reference into its parts."""
_REF = re.compile(rf"(?P<name>{NAME.pattern})(@(?P<version>{VERSION.pattern})|:(?P<alias>{NAME.pattern}))?")


@dataclass(frozen=True, slots=True, order=True)
class VersionId:
    """An exact version: `name@version`."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A reference by a caller: exactly one of version and alias is set."""

    name: str
    version: str | None
    alias: str | None


def parse_ref(text: str) -> ModelRef:
    """Parse a model reference. Raises BadRequest if `text` is invalid."""
    match = _REF.fullmatch(text)
    if not match:
        raise BadRequest(
            f"'{text[:MAX_QUOTED]}' is not a model: use name, name@version or name:alias "
            "(lower-case letters, digits, '.', '_' and '-')"
        )
    version, alias = match["version"], match["alias"]
    return ModelRef(match["name"], version, alias if version or alias else DEFAULT_ALIAS)


def version_id(name: str, version: str) -> VersionId:
    """Return a checked VersionId. Raises BadRequest if either part is invalid (or could leave its folder)."""
    if not NAME.fullmatch(name):
        raise BadRequest(f"'{name[:MAX_QUOTED]}' is not a model name: use {NAME.pattern}")
    if not VERSION.fullmatch(version):
        raise BadRequest(f"'{version[:MAX_QUOTED]}' is not a version: use {VERSION.pattern}")
    return VersionId(name, version)


def parse_version(text: str, versions: Callable[[str], Iterable[VersionId]] = lambda name: ()) -> VersionId:
    """Parse `name@version`. Raises BadRequest, with the `versions` of the name, for any other reference."""
    ref = parse_ref(text)
    if ref.version is None:
        available = ", ".join(map(str, versions(ref.name)))
        more = f"; available: {available}" if available else ""
        raise BadRequest(f"name the version instead of '{text}': {ref.name}@VERSION{more}")
    return VersionId(ref.name, ref.version)


_FORM = re.compile(r"(?<=.)(\.(fp16|fp32|bf16|u?int8|classifier|[a-z0-9_]+-(layout|raw)))+$")
"""Suffixes of a file's name for the precision and output format of an export."""


def name_of_file(stem: str) -> str:
    """Convert a file's name to a model name: "Höhle v2 (best)" becomes "hohle-v2-best".

    Suffixes on its precision or output format are left out: "deer.yolov8-layout.fp16" becomes "deer".
    Raises BadRequest if no valid character is left.
    """
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", _FORM.sub("", plain)).lstrip("._-")[:64].rstrip("._-")
    if not NAME.fullmatch(name):
        raise BadRequest(f"the file name '{stem}' gives no valid model name: give one with --name")
    return name


def number_of(version: VersionId) -> int:
    """Return a version's number as assigned by `next_version`, 0 for other versions."""
    whole = re.fullmatch(r"[1-9][0-9]{0,8}", version.version)
    return int(version.version) if whole else 0


def next_version(name: str, taken: Iterable[str]) -> VersionId:
    """Return the version after the highest whole number in `taken`, or 1 if there is none."""
    return VersionId(name, str(1 + max((number_of(VersionId(name, v)) for v in taken), default=0)))


def get_first_model() -> str:
    """Return the command that adds a first model: in a checkout, the example model."""
    if not SHIPPED.is_dir():
        return "resight models add FILE.onnx"
    here = Path.cwd()
    path = SHIPPED.relative_to(here) if SHIPPED.is_relative_to(here) else SHIPPED
    return f"resight models pull {shlex.quote(str(path))}"
