"""Storage of bearer tokens: names, scopes and hashes in one JSON file, local or at any fsspec URL.

add(name, scopes) -> the token, shown once    revoke(name)    read() -> tokens, or None if none was ever made

HOME/tokens.made records that tokens exist, so that the API stays closed if their file is lost.
A token is 32 random bytes, so a plain SHA-256 is safe: there are 2^256 values to try. Slow, salted hashes (bcrypt)
protect passwords that people choose; here they would only slow down every request.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from model_store.errors import BadRequest, StorageError, StorageUnreachable
from model_store.frozen import Frozen, wrong_fields
from model_store.names import NAME
from model_store.storage import Folder, absolute, is_local
from serve.auth.scopes import TokenScope
from serve.settings import Settings

TOKEN_BYTES = 32
KEY_BYTES, KEY_FILE = 32, "session.key"
MADE = """Tokens were made for the HTTP API of Resight, so it requires one even if the token file is missing.
To run without tokens again, see docs/operate/access.md.
"""


class StoredToken(Frozen):
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    scopes: Annotated[tuple[TokenScope, ...], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created_at: AwareDatetime
    daily_mib: Annotated[int, Field(gt=0)] | None = None
    """Maximum that the token may store in a day (UTC), in MiB."""


class TokenTable(Frozen):
    """Content of the token file."""

    tokens: tuple[StoredToken, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> TokenTable:
        names = [token.name for token in self.tokens]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"more than one token is named {', '.join(duplicates)}")
        return self


def digest(token: bytes) -> str:
    """Return the hash that is stored for a token."""
    return hashlib.sha256(token).hexdigest()


@dataclass(frozen=True)
class TokenFile:
    """The token file at `url`, and a local `mark` that remains if the file is lost. An empty file allows no request."""

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
        """Return the tokens; None if none was ever made. Raises StorageError if their file is damaged or lost."""
        tokens = self._stored()
        if tokens is None and self.mark is not None and self.mark.exists():
            raise StorageError(
                f"{self.url} is missing, but tokens were made ({self.mark}): mount its disk, set RESIGHT_TOKENS, "
                "restore the file, or make tokens again with 'resight tokens add'"
            )
        return tokens

    def remember(self) -> None:
        """Record that tokens exist. Raises StorageUnreachable."""
        if self.mark is None or self.mark.exists():
            return
        try:
            self.mark.parent.mkdir(parents=True, exist_ok=True)
            self.mark.write_text(MADE)
        except OSError as error:
            raise StorageUnreachable(f"cannot write {self.mark}: {error.strerror}") from error

    def session_key(self) -> bytes:
        """Return the key that signs sessions. It lies next to the token file and is made once.

        Raises StorageError. A key that is too short is replaced, which ends all sessions.
        """
        (folder, _), new = self._place(), secrets.token_bytes(KEY_BYTES)
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                if len(key := folder.read(KEY_FILE)) >= KEY_BYTES:
                    return key
            # unless another process has made one
            folder.update(KEY_FILE, lambda key: key if key and len(key) >= KEY_BYTES else new, mode=0o600)
        raise StorageUnreachable(f"{folder.url}/{KEY_FILE} cannot be made")

    def is_unused(self) -> bool:
        """Return whether no token exists or was ever made. Raises StorageError if the file is damaged."""
        return not self._stored() and not (self.mark and self.mark.exists())

    def words(self) -> str:
        """Describe the number of tokens, or the error that prevents reading them."""
        try:
            tokens = self.read()
        except StorageError as error:
            return str(error)
        if tokens is None:
            return "none were made"
        return (
            f"{len(tokens)} in {self.url}" if tokens else f"none is left in {self.url}: only RESIGHT_TOKEN is accepted"
        )

    def _stored(self) -> tuple[StoredToken, ...] | None:
        """Return the tokens of the file, or None if it does not exist. Raises StorageError."""
        folder, name = self._place()
        try:
            return self._parsed(folder.read(name))
        except FileNotFoundError:
            return None

    def _parsed(self, data: bytes) -> tuple[StoredToken, ...]:
        try:
            return TokenTable.model_validate_json(data).tokens
        except ValidationError as error:  # its own message would quote the file
            wrong = wrong_fields(error, whole="the file")
            raise StorageError(
                f"{self.url} is damaged: {wrong}; restore it, or remove it and add every token again"
            ) from None

    def add(self, name: str, scopes: Collection[TokenScope], daily_mib: int | None = None) -> str:
        """Return a new token; only its hash is stored. Raises BadRequest for an invalid or used name, StorageError."""
        if not NAME.fullmatch(name):
            raise BadRequest(f"invalid token name {name!r}: it must match {NAME.pattern}")
        if not scopes:
            raise BadRequest(f"token {name} has no scope: use {', '.join(TokenScope)}")
        token = secrets.token_urlsafe(TOKEN_BYTES)
        added = StoredToken(
            name=name,
            scopes=tuple(scope for scope in TokenScope if scope in scopes),
            sha256=digest(token.encode()),
            created_at=datetime.now(UTC),
            daily_mib=daily_mib,
        )

        def with_it(tokens: tuple[StoredToken, ...]) -> tuple[StoredToken, ...]:
            others = tuple(token for token in tokens if token != added)
            if name in [token.name for token in others]:
                raise BadRequest(f"token {name} exists; revoke it first, or use another name")
            return (*others, added)

        self._update(with_it)
        return token

    def revoke(self, name: str) -> StoredToken:
        """Remove a token and return it. Raises as `_replace`."""
        return self._replace(name, lambda token: ())

    def set_quota(self, name: str, daily_mib: int | None) -> StoredToken:
        """Set the quota of a token, None: without one; return the token. Raises as `_replace`."""
        quota = {"daily_mib": daily_mib}
        return self._replace(name, lambda token: (token.model_copy(update=quota),)).model_copy(update=quota)

    def _replace(self, name: str, change: Callable[[StoredToken], tuple[StoredToken, ...]]) -> StoredToken:
        """Replace a token in its place by `change(token)`, and return the old one.

        Raises BadRequest, which lists the existing names, and StorageError.
        """
        self.read()
        old: list[StoredToken] = []

        def replaced(tokens: tuple[StoredToken, ...]) -> tuple[StoredToken, ...]:
            old.extend(token for token in tokens if token.name == name)
            if not old:
                names = ", ".join(token.name for token in tokens) or "none"
                raise BadRequest(f"unknown token {name!r} in {self.url}; existing tokens: {names}")
            return tuple(new for token in tokens for new in (change(token) if token.name == name else (token,)))

        self._update(replaced)
        return old[0]

    def _place(self) -> tuple[Folder, str]:
        parent, _, name = self.url.rpartition("/")
        return Folder(parent or "/"), name

    def _update(self, change: Callable[[tuple[StoredToken, ...]], tuple[StoredToken, ...]]) -> None:
        """Replace the tokens so that no concurrent change is lost, such as the end of a revoked token."""
        folder, name = self._place()

        def changed(data: bytes | None) -> bytes:
            after = change(() if data is None else self._parsed(data))
            self.remember()
            return TokenTable(tokens=after).model_dump_json(indent=1, exclude_none=True).encode()

        folder.update(name, changed, mode=0o600)
