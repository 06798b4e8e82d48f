"""Store models on disk or s3://: immutable versions, movable aliases.

<models>/<name>/<version>/{CLAIM, model.onnx, config.json, README.md, probe/*, READY}
<models>/<name>/aliases.json                            {"production": "1"}

READY contains the sha256 of every file and is created last. A folder without it is not a version, so an incomplete
copy is never used. CLAIM has the same contents and is created first: it reserves the version for these bytes, and no
publication with other bytes writes there. Bytes are never trusted: they are hashed each time they are read for use.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import pydantic_core

from model_store.config import AnyConfig, ClassifierConfig, CropConfig, ModelConfig, parse_config, with_article
from model_store.errors import (
    BadRequest,
    Conflict,
    DigestMismatch,
    ModelError,
    ModelExists,
    ModelNotFound,
    ModelRefused,
    StorageError,
    StorageUnreachable,
    StorageUnsafe,
)
from model_store.inference_key import canonical_json, inference_key, sha256_hex, weights_digest
from model_store.leftovers import remove_leftovers
from model_store.names import (
    DEFAULT_ALIAS,
    NAME,
    VERSION,
    ModelRef,
    VersionId,
    get_first_model,
    next_version,
    parse_ref,
)
from model_store.ready import CLAIM, MAX_READY_BYTES, READY, format_ready, parse_ready
from model_store.storage import Folder, require_create

CONFIG = "config.json"
ALIASES = "aliases.json"
MAX_VERSION_BYTES = 8 * 2**30
"""Maximum size of all files of a version together, which are read into memory."""
PUBLISH_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Identity of a model version, part of every response and every row."""

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
    """A READY version without the contents of its files, for lists, plans and responses."""

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
        """Return the config of a detector. Raises BadRequest for another kind."""
        if not isinstance(self.config, ModelConfig):
            raise BadRequest(f"{self.id} is {in_words(self.config)}, which finds no boxes: choose a detector")
        return self.config

    @property
    def classifier_config(self) -> ClassifierConfig:
        """Return the config of a classifier. Raises BadRequest for another kind."""
        if not isinstance(self.config, ClassifierConfig):
            raise BadRequest(f"{self.id} is {in_words(self.config)}: choose a classifier")
        return self.config


def digest_of(digests: Mapping[str, str]) -> str:
    """Return the sha256 of the names and digests of a version's files: equal only for equal bytes."""
    return sha256_hex(canonical_json(dict(digests)))


def in_words(config: ModelConfig | CropConfig) -> str:
    """Return the kind with an article, such as `an embedder`."""
    if isinstance(config, ModelConfig) and config.is_external:
        return "a model of imported results"
    return with_article(config.kind)


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
        """Return the READY versions of a model, sorted by name (not by age)."""
        return [version for version, is_ready in self._entries(name, READY) if is_ready]

    def readable_versions(self) -> list[VersionId]:
        """Return the READY versions of all models, except of those that cannot be read. Raises StorageUnreachable."""
        versions: list[VersionId] = []
        for name in self.names():
            with contextlib.suppress(StorageError):
                versions += self.versions(name)
        return versions

    def unfinished(self, name: str) -> list[VersionId]:
        """Return versions with CLAIM and other files, but without READY: their publication is running or was cut off.

        Of a removed version, only CLAIM is left.
        """
        ready = set(self.versions(name))
        claimed = [version for version, is_claimed in self._entries(name, CLAIM) if is_claimed]
        rest = [version for version in claimed if version not in ready]
        return [v for v in rest if self.folder.names(f"{v.name}/{v.version}") != [CLAIM]]

    def aliases(self, name: str) -> dict[str, str]:
        """Return the version of each alias, e.g. {"production": "1"}. Raises ModelRefused for a damaged file."""
        try:
            return self._aliases(name, self.folder.read(f"{name}/{ALIASES}"))
        except FileNotFoundError:
            return {}

    def _aliases(self, name: str, data: bytes) -> dict[str, str]:
        try:  # unlike `json`, it rejects deeply nested text and lone surrogates
            aliases = pydantic_core.from_json(data)
        except (ValueError, RecursionError) as error:
            raise ModelRefused(f"{self.url}/{name}/{ALIASES} is not JSON: {error}") from error
        if not isinstance(aliases, dict):
            raise ModelRefused(f"{self.url}/{name}/{ALIASES} must map aliases to versions")
        return {str(alias): str(version) for alias, version in aliases.items()}  # type: ignore[misc]

    def require_model(self, name: str) -> list[VersionId]:
        """Return the READY versions of a model. Raises ModelNotFound with a list of the models."""
        versions = self.versions(name)
        if not versions:
            names = dict.fromkeys(version.name for version in self.readable_versions())
            models = ", ".join(names) or f"none; to begin with: {get_first_model()}"
            raise ModelNotFound(f"unknown model '{name}' in {self.url}; available: {models}")
        return versions

    def only_version(self, name: str) -> VersionId | None:
        """Return the only READY version of a model, else None: its default without an alias `production`."""
        versions = self.versions(name)
        return versions[0] if len(versions) == 1 else None

    def resolve(self, ref: ModelRef) -> VersionId:
        """Return the version that a reference currently denotes. Raises ModelNotFound with a list of versions."""
        versions = self.require_model(ref.name)
        names = ", ".join(map(str, versions))
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
                    f"{ref.name} has no alias '{alias}' (aliases: {', '.join(aliases) or 'none'}); use a version "
                    f"({names}), or set the alias: resight models promote {versions[0]}{option}"
                )
        exact = VersionId(ref.name, version)
        if exact not in versions:
            raise ModelNotFound(f"unknown version {exact} in {self.url}; available: {names}")
        return exact

    def describe(self, version: VersionId) -> ModelVersion:
        """Return config and identity of a READY version; only the config is verified, not the other files."""
        digests = self.digests(version)
        if CONFIG not in digests:
            raise ModelRefused(f"{version}: {READY} lists no {CONFIG}; pull the version again")
        config = parse_config(self._verified(version, CONFIG, digests), f"{version} {CONFIG}")
        weights = weights_digest(config, dict(digests))
        key = inference_key(config, weights)
        info = ModelInfo(version.name, version.version, weights, key, config.labels)
        return ModelVersion(info, config, digests)

    def digests(self, version: VersionId) -> dict[str, str]:
        """Return file names and their sha256 from READY. Raises ModelNotFound, ModelRefused."""
        try:
            return parse_ready(self._read(version, READY, MAX_READY_BYTES), str(version))
        except FileNotFoundError:
            available = ", ".join(map(str, self.versions(version.name))) or "none"
            words = f"{version} is not in {self.url}, or is not READY yet; available: {available}"
            raise ModelNotFound(words) from None

    def mark(self, version: VersionId) -> str:
        """Return a text that changes when a file of the version is written, such as by a repair. Never raises."""
        try:
            return self.folder.mark(f"{version.name}/{version.version}")
        except StorageUnreachable as error:
            return str(error)

    def read_file(self, version: ModelVersion, name: str) -> bytes:
        """Return the bytes of one file, verified. Raises DigestMismatch, ModelRefused."""
        return self._verified(version.id, name, version.digests)

    def read_files(self, version: ModelVersion) -> dict[str, bytes]:
        """Return every file by name, verified. Raises DigestMismatch on the first that differs, ModelRefused."""
        return dict(self._each_file(version))

    def verify(self, version: VersionId) -> ModelVersion:
        """Read and hash every file in READY. Raises DigestMismatch on the first that differs, ModelRefused."""
        described = self.describe(version)
        for _ in self._each_file(described):
            pass
        return described

    def publish(self, version: VersionId, files: Mapping[str, bytes]) -> ModelVersion:
        """Create a new version, READY last. Repeating the call completes a publication that was cut off.

        Raises ModelExists if the version exists or another publication has claimed it: versions are never replaced.
        Raises ModelRefused if the model has versions of another kind (detector, classifier, embedder, imported
        results): aliases move between versions, and callers expect responses of one kind.
        """
        digests = {name: sha256_hex(data) for name, data in files.items()}
        ready = format_ready(digests, str(version))
        if self.folder.exists(f"{version.name}/{version.version}/{READY}"):
            raise ModelExists(f"{version} exists in {self.url} and versions never change; choose another version")
        if CONFIG in files:  # else `describe` raises
            self.require_one_kind(version, parse_config(files[CONFIG], f"{version} {CONFIG}"))
        require_create(self.url)
        remove_leftovers(f"{self.url}/{version.name}")
        for name, data in {CLAIM: ready, **files, READY: ready}.items():
            self._create(version, name, data)
        return self.describe(version)

    def publish_next(self, name: str, files: Mapping[str, bytes]) -> ModelVersion:
        """Publish under the next whole number that no other publication takes first.

        Raises ModelExists if PUBLISH_ATTEMPTS numbers were taken. Raises ModelRefused like `publish`.
        """
        for _ in range(PUBLISH_ATTEMPTS):
            with contextlib.suppress(ModelExists):
                return self.publish(next_version(name, self.folder.names(name)), files)
        raise ModelExists(f"{name}: {PUBLISH_ATTEMPTS} version numbers were taken; choose one with --version")

    def files(self, version: VersionId) -> list[str]:
        """Return the files and folders of a READY or unfinished version, without CLAIM. Raises ModelNotFound."""
        files = self.folder.names(f"{version.name}/{version.version}")
        if files in ([], [CLAIM]):
            raise ModelNotFound(f"{version} is not in {self.url}; see: resight models list")
        return [file for file in files if file != CLAIM]

    def remove(self, version: VersionId, require_unneeded: Callable[[], None]) -> None:
        """Remove the files of a version, READY first, or those of an unfinished publication.

        CLAIM stays, so that the version never refers to other bytes; publishing the same bytes restores it.

        `require_unneeded` raises if the version is needed. It is called again after READY is removed, which is then
        restored if it raises. So a concurrent user of the version either is detected or finds no READY.
        Raises ModelNotFound, StorageUnreachable.
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
        self, name: str, alias: str, version: str | None, *, among: Collection[str | None] | None = None
    ) -> None:
        """Point an alias at a READY version, or remove it (None). Other aliases are kept.

        Raises Conflict if the alias currently has a version that is not `among` those given (None: not set).
        """
        if version is not None:
            parse_ref(f"{name}:{alias}")
            version = self.resolve(ModelRef(name, version, None)).version

        def changed(data: bytes | None) -> bytes:
            aliases = {} if data is None else self._aliases(name, data)
            now = aliases.pop(alias, None)
            if among is not None and now not in among:
                raise Conflict(f"{name}/{ALIASES} was changed: {alias} is {now or 'not set'}; nothing was written")
            if version is not None:
                aliases[alias] = version
            return json.dumps(aliases, indent=1).encode()

        self.folder.update(f"{name}/{ALIASES}", changed)

    def require_one_kind(self, version: VersionId, config: AnyConfig) -> None:
        """Raise ModelRefused if the model has a version of another kind than that of `config`."""
        kind = in_words(config)
        for other in self.versions(version.name):
            try:
                other_kind = in_words(self.describe(other).config)
            except ModelError:
                continue  # a damaged version has no kind
            if other_kind != kind:
                raise ModelRefused(f"{version} is {kind}, but {other} is {other_kind}: give {version} another name")
            return

    def _entries(self, name: str, file: str) -> Iterator[tuple[VersionId, bool]]:
        """Yield each folder with the name of a version, and True if it contains this file."""
        for entry in self.folder.names(name):
            if VERSION.fullmatch(entry):
                yield VersionId(name, entry), self.folder.exists(f"{name}/{entry}/{file}")

    def _create(self, version: VersionId, name: str, data: bytes) -> None:
        """Create a file, or keep it if it has these bytes. Raises ModelExists if it has others.

        Files are never replaced, so publications of one version cannot mix their files.
        """
        place = f"{version.name}/{version.version}/{name}"
        try:
            self.folder.create(place, data)
        except FileExistsError:
            if self.folder.read(place) != data:
                raise ModelExists(
                    f"{version} is claimed by another publication with a different {name}, which is running, was cut "
                    "off or was removed; choose another version, or delete "
                    f"{self.url}/{version.name}/{version.version} if it was cut off"
                ) from None

    def _each_file(self, version: ModelVersion) -> Iterator[tuple[str, bytes]]:
        left = MAX_VERSION_BYTES
        for name in version.digests:
            data = self._verified(version.id, name, version.digests, left)
            left -= len(data)
            yield name, data

    def _verified(
        self, version: VersionId, name: str, digests: Mapping[str, str], max_bytes: int = MAX_VERSION_BYTES
    ) -> bytes:
        """Return the bytes of a file that READY lists. Raises DigestMismatch, ModelRefused."""
        wanted = digests.get(name)
        try:
            data = self._read(version, name, max_bytes)
        except FileNotFoundError:
            raise DigestMismatch(f"{version}: {name} is missing; pull the version again") from None
        found = sha256_hex(data)
        if found != wanted:
            raise DigestMismatch(
                f"{version}: {name} has sha256 {found[:12]}…, but READY lists {str(wanted)[:12]}…; "
                "the file was changed or truncated: pull the version again, or copy the original to "
                f"{self.url}/{version.name}/{version.version}/{name}"
            )
        return data

    def _read(self, version: VersionId, name: str, max_bytes: int) -> bytes:
        """Return a file of a version. Raises FileNotFoundError, StorageUnreachable, ModelRefused."""
        try:
            return self.folder.read_inside(f"{version.name}/{version.version}", name, max_bytes)
        except StorageUnsafe as error:
            raise ModelRefused(f"{version}: {error}") from error
