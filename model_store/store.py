"""Models on disk (or s3://): immutable versions, movable aliases.

<models>/<name>/<version>/{CLAIM, model.onnx, config.json, README.md, probe/*, READY}
<models>/<name>/aliases.json                            {"production": "1"}
READY holds the sha256 of every file and is created last: without it there is no version, so a half-copied folder
is never seen. CLAIM holds the same and is created first: it takes the version for these bytes, and no publication
with other bytes writes there. Bytes are hashed as they are read for use, never trusted.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydantic_core

from model_store.config import AnyConfig, ClassifierConfig, ModelConfig, parse_config
from model_store.errors import (
    BadRequest,
    Conflict,
    DigestMismatch,
    ModelError,
    ModelExists,
    ModelNotFound,
    ModelRefused,
    StorageUnsafe,
)
from model_store.inference_key import canonical_json, inference_key, sha256_hex, weights_digest
from model_store.names import (
    DEFAULT_ALIAS,
    NAME,
    VERSION,
    ModelRef,
    VersionId,
    next_version,
    parse_ref,
)
from model_store.ready import CLAIM, MAX_READY_BYTES, READY, format_ready, parse_ready
from model_store.storage import Folder, require_create

CONFIG = "config.json"
ALIASES = "aliases.json"
MAX_VERSION_BYTES = 8 * 2**30
"""All files of a version together: they are read into memory."""
PUBLISH_ATTEMPTS = 100
SHIPPED = Path(__file__).resolve().parent.parent / "examples" / "models" / "ssdlite-coco"
"""The model to begin with, in a checkout."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Who answered: goes into every response and every row."""

    name: str
    version: str
    weights_sha256: str
    inference_key: str
    labels: tuple[str, ...]

    @property
    def id(self) -> VersionId:
        return VersionId(self.name, self.version)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A READY version, its files not yet read: what lists, plans and answers need."""

    info: ModelInfo
    config: AnyConfig
    digests: Mapping[str, str]

    @property
    def id(self) -> VersionId:
        return self.info.id

    @property
    def digest(self) -> str:
        return digest_of(self.digests)

    @property
    def detector_config(self) -> ModelConfig:
        """Raises BadRequest that names the kind, of a classifier."""
        if isinstance(self.config, ClassifierConfig):
            raise BadRequest(f"{self.id} is a classifier, which finds no boxes: name a detector")
        return self.config

    @property
    def classifier_config(self) -> ClassifierConfig:
        """Raises BadRequest that names the kind, of a detector."""
        if not isinstance(self.config, ClassifierConfig):
            raise BadRequest(f"{self.id} is a detector: name a classifier")
        return self.config


def digest_of(digests: Mapping[str, str]) -> str:
    """sha256 over the names and digests of all files of a version: equal only for equal bytes."""
    return sha256_hex(canonical_json(dict(digests)))


def get_first_model() -> str:
    """Return the command that gets a model to begin with: the shipped one, where there is a checkout."""
    if not SHIPPED.is_dir():
        return "resight models add FILE.onnx"
    here = Path.cwd()
    path = SHIPPED.relative_to(here) if SHIPPED.is_relative_to(here) else SHIPPED
    return f"resight models pull {shlex.quote(str(path))}"


def versions_at(url: str) -> tuple[ModelStore, list[VersionId]]:
    """Return the READY versions in a store, a model or a version, whichever is at `url`, and their store."""
    for depth in range(3):
        place, *names = url.rsplit("/", depth)
        if not place or not all(map(VERSION.fullmatch, names)):
            continue
        store = ModelStore(place)
        of_models = [v for name in names[:1] or store.names() for v in store.versions(name)]
        found = [v for v in of_models if names[1:] in ([], [v.version])]
        if found:
            return store, found
    return ModelStore(url), []


class ModelStore:
    """The store at a local path or fsspec URL."""

    def __init__(self, url: str) -> None:
        self.folder = Folder(url)

    @property
    def url(self) -> str:
        return self.folder.url

    def names(self) -> list[str]:
        return [name for name in self.folder.names() if NAME.fullmatch(name)]

    def versions(self, name: str) -> list[VersionId]:
        """READY versions of a model, by name (which is not an order of age)."""
        return [version for version, is_ready in self._entries(name, READY) if is_ready]

    def unfinished(self, name: str) -> list[VersionId]:
        """Return versions of which a publication has written more than CLAIM, and not READY: it is running, or was cut
        off. Of a version that was removed, CLAIM alone is left.
        """
        ready = set(self.versions(name))
        claimed = [version for version, is_claimed in self._entries(name, CLAIM) if is_claimed]
        left = [version for version in claimed if version not in ready]
        return [v for v in left if self.folder.names(f"{v.name}/{v.version}") != [CLAIM]]

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias to version, e.g. {"production": "1"}. Raises ModelRefused for a damaged file."""
        try:
            return self._aliases(name, self.folder.read(f"{name}/{ALIASES}"))
        except FileNotFoundError:
            return {}

    def _aliases(self, name: str, data: bytes) -> dict[str, str]:
        try:  # unlike `json`, it takes neither text nested without end nor half a character
            found = pydantic_core.from_json(data)
        except (ValueError, RecursionError) as error:
            raise ModelRefused(f"{self.url}/{name}/{ALIASES} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ModelRefused(f"{self.url}/{name}/{ALIASES} must map alias to version")
        return {str(alias): str(version) for alias, version in found.items()}  # type: ignore[misc]

    def require_model(self, name: str) -> list[VersionId]:
        """Return the READY versions of a model. Raises ModelNotFound that lists the models there are."""
        versions = self.versions(name)
        if not versions:
            names = [other for other in self.names() if self.versions(other)]
            there = ", ".join(names) or f"none; to begin with: {get_first_model()}"
            raise ModelNotFound(f"no model '{name}' in {self.url}; there is: {there}")
        return versions

    def only_version(self, name: str) -> VersionId | None:
        """Return what the name of a model means while its alias `production` is not set: its only READY version."""
        versions = self.versions(name)
        return versions[0] if len(versions) == 1 else None

    def resolve(self, ref: ModelRef) -> VersionId:
        """Return the version that a reference means now. Raises ModelNotFound that lists what exists."""
        known = self.require_model(ref.name)
        there = ", ".join(map(str, known))
        version = ref.version
        if version is None:
            aliases = self.aliases(ref.name)
            alias = ref.alias or DEFAULT_ALIAS
            if alias in aliases:
                version = aliases[alias]
            elif alias == DEFAULT_ALIAS and (only := self.only_version(ref.name)):
                return only
            else:
                option = "" if alias == DEFAULT_ALIAS else f" --alias {alias}"
                raise ModelNotFound(
                    f"{ref.name} has no alias '{alias}' (aliases: {', '.join(aliases) or 'none'}); name a version "
                    f"({there}), or set the alias: resight models promote {known[0]}{option}"
                )
        exact = VersionId(ref.name, version)
        if exact not in known:
            raise ModelNotFound(f"no READY version {exact} in {self.url}; there is: {there}")
        return exact

    def describe(self, version: VersionId) -> ModelVersion:
        """Config and identity of a READY version; the config is verified, other files are not."""
        digests = self.digests(version)
        if CONFIG not in digests:
            raise ModelRefused(f"{version}: {READY} lists no {CONFIG}; add the version again")
        config = parse_config(self._verified(version, CONFIG, digests), f"{version} {CONFIG}")
        weights = weights_digest(config, dict(digests))
        key = inference_key(config, weights)
        info = ModelInfo(version.name, version.version, weights, key, config.labels)
        return ModelVersion(info, config, digests)

    def digests(self, version: VersionId) -> dict[str, str]:
        """Return file names and their sha256, as READY states them. Raises ModelNotFound, ModelRefused."""
        try:
            return parse_ready(self._read(version, READY, MAX_READY_BYTES), str(version))
        except FileNotFoundError:
            raise ModelNotFound(f"{version} is not in {self.url}, or is not READY yet") from None

    def read_file(self, version: ModelVersion, name: str) -> bytes:
        """Return the bytes of one file, verified. Raises DigestMismatch, ModelRefused."""
        return self._verified(version.id, name, version.digests)

    def read_files(self, version: ModelVersion) -> dict[str, bytes]:
        """Return every file by its name, verified. Raises DigestMismatch on the first that differs, ModelRefused."""
        return dict(self._each_file(version))

    def verify(self, version: VersionId) -> ModelVersion:
        """Read and hash every file READY lists. Raises DigestMismatch on the first that differs, ModelRefused."""
        described = self.describe(version)
        for _ in self._each_file(described):
            pass
        return described

    def publish(self, version: VersionId, files: Mapping[str, bytes]) -> ModelVersion:
        """Create a new version, READY last. The same call finishes a publication that was cut off.

        Raises ModelExists: versions are never replaced, nor taken from a publication that is running; and
        ModelRefused for a classifier among detectors, or the other way round: an alias moves between versions, and
        its callers expect answers of one kind.
        """
        digests = {name: sha256_hex(data) for name, data in files.items()}
        ready = format_ready(digests, str(version))
        if self.folder.exists(f"{version.name}/{version.version}/{READY}"):
            raise ModelExists(
                f"{version} exists in {self.url} and versions never change; choose another version"
            )
        self._require_one_kind(version, files)
        require_create(self.url)
        for name, data in {CLAIM: ready, **files, READY: ready}.items():
            self._create(version, name, data)
        return self.describe(version)

    def publish_next(self, name: str, files: Mapping[str, bytes]) -> ModelVersion:
        """Publish under the next whole number; the one after it where another publication takes that first.

        Raises ModelExists when all of PUBLISH_ATTEMPTS numbers were taken; ModelRefused as `publish`.
        """
        for _ in range(PUBLISH_ATTEMPTS):
            with contextlib.suppress(ModelExists):
                return self.publish(next_version(name, self.folder.names(name)), files)
        raise ModelExists(
            f"{name}: {PUBLISH_ATTEMPTS} version numbers were taken; choose one with --version"
        )

    def files(self, version: VersionId) -> list[str]:
        """Return files and folders of a version, READY or unfinished, without CLAIM. Raises ModelNotFound."""
        files = self.folder.names(f"{version.name}/{version.version}")
        if files in ([], [CLAIM]):
            raise ModelNotFound(f"{version} is not in {self.url}; see: resight models list")
        return [file for file in files if file != CLAIM]

    def remove(self, version: VersionId, require_unneeded: Callable[[], None]) -> None:
        """Remove the files of a version, READY first, or what an unfinished publication has left. CLAIM stays: the
        version never means other bytes, and publishing the same ones brings it back.

        `require_unneeded` raises what forbids it. It is called again without READY, which is put back then: whoever
        comes to need the version at that moment is seen by it, or does not find READY afterwards. Raises
        ModelNotFound, StorageUnreachable.
        """
        place = f"{version.name}/{version.version}"
        files = self.files(version)
        require_unneeded()
        with contextlib.suppress(FileNotFoundError):
            ready = self._read(version, READY, MAX_READY_BYTES)
            with contextlib.suppress(FileExistsError):
                self.folder.create(f"{place}/{CLAIM}", ready)
            self.folder.remove(f"{place}/{READY}")
            try:
                require_unneeded()
            except BaseException:
                with contextlib.suppress(FileExistsError):
                    self.folder.create(f"{place}/{READY}", ready)
                raise
        for file in files:
            self.folder.remove(f"{place}/{file}")

    def set_alias(
        self,
        name: str,
        alias: str,
        version: str | None,
        *,
        among: Collection[str | None] | None = None,
    ) -> None:
        """Point an alias at a READY version, or at nothing (None). Other aliases stay as the file has them.

        Raises Conflict if the alias names a version that is not `among` those given (None in it: no version).
        """
        if version is not None:
            parse_ref(f"{name}:{alias}")
            version = self.resolve(ModelRef(name, version, None)).version

        def changed(data: bytes | None) -> bytes:
            aliases = {} if data is None else self._aliases(name, data)
            now = aliases.pop(alias, None)
            if among is not None and now not in among:
                raise Conflict(
                    f"{name}/{ALIASES} was changed: {alias} is {now or 'not in it'}; nothing was written"
                )
            if version is not None:
                aliases[alias] = version
            return json.dumps(aliases, indent=1).encode()

        self.folder.update(f"{name}/{ALIASES}", changed)

    def _require_one_kind(self, version: VersionId, files: Mapping[str, bytes]) -> None:
        """Raises ModelRefused that names a version of the other kind."""
        if CONFIG not in files:
            return  # describe says so
        kind = parse_config(files[CONFIG], f"{version} {CONFIG}").kind
        for other in self.versions(version.name):
            try:
                there = self.describe(other).config.kind
            except ModelError:
                continue  # a damaged one says nothing
            if there != kind:
                raise ModelRefused(
                    f"{version} is a {kind}, and {other} a {there}: give the {kind} a name of its own"
                )
            return

    def _entries(self, name: str, file: str) -> Iterator[tuple[VersionId, bool]]:
        """Yield each folder with the name of a version, and True where it has this file."""
        for entry in self.folder.names(name):
            if VERSION.fullmatch(entry):
                yield VersionId(name, entry), self.folder.exists(f"{name}/{entry}/{file}")

    def _create(self, version: VersionId, name: str, data: bytes) -> None:
        """Create a file, or leave it where it has these bytes. Raises ModelExists where it has others.

        Nothing is ever replaced, so publications of one version cannot mix their files.
        """
        place = f"{version.name}/{version.version}/{name}"
        try:
            self.folder.create(place, data)
        except FileExistsError:
            if self.folder.read(place) != data:
                raise ModelExists(
                    f"{version} is taken by another publication with a different {name}, which is running, was cut off "
                    "or was removed; choose another version, or delete "
                    f"{self.url}/{version.name}/{version.version} if it was cut off"
                ) from None

    def _each_file(self, version: ModelVersion) -> Iterator[tuple[str, bytes]]:
        left = MAX_VERSION_BYTES
        for name in version.digests:
            data = self._verified(version.id, name, version.digests, left)
            left -= len(data)
            yield name, data

    def _verified(
        self,
        version: VersionId,
        name: str,
        digests: Mapping[str, str],
        max_bytes: int = MAX_VERSION_BYTES,
    ) -> bytes:
        """Return the bytes of a file that READY lists. Raises DigestMismatch, ModelRefused."""
        wanted = digests.get(name)
        try:
            data = self._read(version, name, max_bytes)
        except FileNotFoundError:
            raise DigestMismatch(f"{version}: {name} is missing; add the version again") from None
        found = sha256_hex(data)
        if found != wanted:
            raise DigestMismatch(
                f"{version}: {name} is sha256 {found[:12]}…, READY says {str(wanted)[:12]}…; "
                "the file was changed or cut: copy it again"
            )
        return data

    def _read(self, version: VersionId, name: str, max_bytes: int) -> bytes:
        """Return a file of a version. Raises FileNotFoundError, StorageUnreachable, ModelRefused."""
        try:
            return self.folder.read_inside(f"{version.name}/{version.version}", name, max_bytes)
        except StorageUnsafe as error:
            raise ModelRefused(f"{version}: {error}") from error
