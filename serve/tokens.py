"""Bearer tokens at rest: names, scopes and hashes in one JSON file, local or at any fsspec URL.

add(name, scopes) -> the token, shown once    revoke(name)    read() -> tokens; None if there were never any
HOME/tokens.made records that there are tokens, so that a list which is lost does not open the API.
A token is 32 random bytes, so its bare SHA-256 tells nothing: there are 2^256 to try. Slow and salted
hashes (bcrypt) guard passwords, which people choose; here they would only cost every request its time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_store.errors import BadRequest, StorageError, StorageUnreachable
from model_store.names import NAME
from model_store.storage import Folder, absolute, is_local
from serve.scopes import Scope
from serve.settings import Settings

TOKEN_BYTES = 32
MADE = """Tokens were made for the HTTP API of Resight, so it needs one even while their list is missing.
To do without tokens again, see docs/access.md.
"""


class StoredToken(BaseModel):
    """One token, without the token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created_at: AwareDatetime


class TokenTable(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[StoredToken, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> TokenTable:
        names = [token.name for token in self.tokens]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"more than one token is named {', '.join(twice)}")
        return self


def digest(token: bytes) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token).hexdigest()


@dataclass(frozen=True)
class TokenFile:
    """The file at `url`, and a local `mark`, which outlives it. An empty table lets nobody in."""

    url: str
    mark: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", absolute(self.url))
        if not is_local(self.url) and "/" not in self.url.partition("://")[2]:
            raise BadRequest(f"RESIGHT_TOKENS must name a file: {self.url}/tokens.json")

    @classmethod
    def of(cls, settings: Settings) -> TokenFile:
        return cls(settings.tokens_url, settings.home_path / "tokens.made")

    def read(self) -> tuple[StoredToken, ...] | None:
        """Return None if no token was ever made.

        Raises StorageError if the file cannot be read or understood, or is missing although tokens were made.
        """
        tokens = self._stored()
        if tokens is None and self.mark is not None and self.mark.exists():
            raise StorageError(
                f"{self.url} is missing, but tokens were made ({self.mark}): mount its disk, set RESIGHT_TOKENS, "
                "restore the file, or make tokens again with 'resight tokens add'"
            )
        return tokens

    def remember(self) -> None:
        """Record that there are tokens. Raises StorageUnreachable."""
        if self.mark is None or self.mark.exists():
            return
        try:
            self.mark.parent.mkdir(parents=True, exist_ok=True)
            self.mark.write_text(MADE)
        except OSError as error:
            raise StorageUnreachable(f"cannot write {self.mark}: {error.strerror}") from error

    def is_unused(self) -> bool:
        """Return whether there is no token, and never was. Raises StorageError for a damaged file."""
        return not self._stored() and not (self.mark and self.mark.exists())

    def words(self) -> str:
        """Return how many tokens there are, or why that is unknown."""
        try:
            tokens = self.read()
        except StorageError as error:
            return str(error)
        return "none were made" if tokens is None else f"{len(tokens)} in {self.url}"

    def _stored(self) -> tuple[StoredToken, ...] | None:
        """Return None without a file. Raises StorageError."""
        folder, name = self._place()
        try:
            data = folder.read(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageUnreachable(f"cannot read {self.url}: {error.strerror or error}") from None
        try:
            return TokenTable.model_validate_json(data).tokens
        except ValidationError as error:  # its own text would quote the file
            wrong = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, wrong["loc"])) or "the file"
            raise StorageError(
                f"{self.url} is damaged: {place}: {wrong['msg']}; restore it, or remove it and add "
                "every token again"
            ) from None

    def add(self, name: str, scopes: Collection[Scope]) -> str:
        """Return a new token; only its hash is stored. Raises BadRequest for a name in use, StorageError."""
        if not NAME.fullmatch(name):
            raise BadRequest(f"{name!r} is not a name for a token; it must match {NAME.pattern}")
        if not scopes:
            raise BadRequest(f"give {name} a scope: {', '.join(Scope)}")
        token = secrets.token_urlsafe(TOKEN_BYTES)
        with self._alone():
            tokens = self._stored() or ()
            if name in [known.name for known in tokens]:
                raise BadRequest(f"there is a token {name}; revoke it first, or take another name")
            added = StoredToken(
                name=name,
                scopes=tuple(scope for scope in Scope if scope in scopes),
                sha256=digest(token.encode()),
                created_at=datetime.now(UTC),
            )
            self._write((*tokens, added))
        return token

    def revoke(self, name: str) -> StoredToken:
        """Remove a token and return it. Raises BadRequest, which lists what exists, and StorageError."""
        with self._alone():
            tokens = self.read() or ()
            for known in tokens:
                if known.name == name:
                    self._write(tuple(token for token in tokens if token is not known))
                    return known
        names = ", ".join(token.name for token in tokens) or "none"
        raise BadRequest(f"no token {name!r} in {self.url}; there is: {names}")

    def _place(self) -> tuple[Folder, str]:
        parent, _, name = self.url.rpartition("/")
        return Folder(parent or "/"), name

    def _write(self, tokens: tuple[StoredToken, ...]) -> None:
        self.remember()
        folder, name = self._place()
        data = TokenTable(tokens=tokens).model_dump_json(indent=1).encode()
        try:
            folder.write(name, data, mode=0o600)
        except OSError as error:
            raise StorageUnreachable(
                f"cannot write {self.url}: {error.strerror or error}"
            ) from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One change at a time, so that none brings back what another revoked; local files only."""
        if not is_local(self.url):
            yield
            return
        path = Path(self.url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.with_name(f".{path.name}.lock").open("a")
        except OSError as error:
            raise StorageUnreachable(f"cannot write {self.url}: {error.strerror}") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
