"""Authorisation of HTTP requests: the scope that each request requires, and the tokens that have it.

request -> Guard -> scope_of(method, path) -> Access.check(authorization, scope) -> the routes, or 401, 403

The guard is a middleware, not a dependency of the routes: FastAPI reads a JSON body before it resolves dependencies.
A middleware also covers paths without dependencies: /docs, mounted applications and unknown paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from model_store.errors import (
    Forbidden,
    ResightError,
    StorageError,
    StorageUnreachable,
    Unauthorized,
)
from serve.api.refusal import refusal
from serve.auth.scopes import STALE_S, TokenScope
from serve.auth.tokens import StoredToken, TokenFile, digest
from serve.models.resolver import loads_if
from serve.settings import Settings

log = structlog.get_logger("resight.access")

RULES: tuple[tuple[str, str, TokenScope | None], ...] = (
    # load balancers and orchestrators call these without a token; the answers contain only the health
    ("GET|HEAD", r"/healthz|/readyz|/v2/health/(live|ready)", None),
    ("POST", r"/v1/(detect|classify)", TokenScope.detect),
    ("POST", r"/v2/models/[^/]+(/versions/[^/]+)?/infer", TokenScope.detect),
    ("POST", r"/v2/repository/index", TokenScope.detect),  # a list, by POST
    ("POST", r"/v1/images", TokenScope.upload),
    ("GET|HEAD", r".*", TokenScope.detect),  # also metrics and docs: they contain nothing secret
)
"""Methods, path and scope; the first match applies. Requests without a match change something and require admin."""

CHECK_S, WAIT_S = 2.0, 2.0
"""Seconds after which the tokens are read again in the background, and the maximum wait for them.

Requests wait only if the tokens are older than STALE_S.
"""


def scope_of(method: str, path: str) -> TokenScope | None:
    """Return the scope that a request requires, or None if it requires no token."""
    for methods, pattern, scope in RULES:
        if re.fullmatch(methods, method) and re.fullmatch(pattern, path, re.DOTALL):
            return scope
    return TokenScope.admin


class Access:
    """The tokens that one replica accepts, updated in the background. Use it on one event loop.

    `secret` is RESIGHT_TOKEN, which has all scopes. A token is required as soon as there is a secret or a `file`, and
    always if `required` is True. If the file disappears or is damaged, the tokens read before stay valid. If it
    was never read successfully, or is missing although tokens were made, none of its tokens is accepted.
    """

    def __init__(
        self, secret: str = "", file: TokenFile | None = None, required: bool = False
    ) -> None:
        own = secret.strip().encode("utf-8", "surrogateescape")
        self._secret = ((digest(own), frozenset(TokenScope)),) if own else ()
        self._file = file
        self._tokens: tuple[StoredToken, ...] | None = None
        self._needed = required or bool(own)
        self._unread = file is not None  # True until the file was read successfully
        self._trouble = ""
        self._read_at_s = -STALE_S
        self._reading: asyncio.Task[None] | None = None
        # a separate thread: if this waited behind look-ups of requests, a client could delay its own revocation
        self._reader = ThreadPoolExecutor(1, "tokens")

    @classmethod
    def of(cls, settings: Settings, required: bool = False) -> Access:
        """Return the access of RESIGHT_TOKEN and RESIGHT_TOKENS; a file named there must exist.

        A token is also required if the home lacks Ray's token. Such a home was never used by 'resight up': its disk
        may be missing, and the token file with it.
        """
        required = required or bool(settings.tokens) or not settings.ray_token_path.exists()
        return cls(settings.token, TokenFile.of(settings), required)

    @property
    def open(self) -> bool:
        """True if requests need no token: none was ever made, and none is required."""
        return not (self._needed or self._unread)

    async def check(self, authorization: str, scope: TokenScope) -> frozenset[TokenScope]:
        """Return the scopes of the token, or all scopes while no token is needed.

        Raises Unauthorized, Forbidden, or StorageUnreachable if the tokens have not been read yet.
        """
        await self._update()
        if self.open:
            return frozenset(TokenScope)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized(
                "send the header 'Authorization: Bearer TOKEN'; 'resight tokens add' makes one"
            )
        scopes = self._scopes(token.strip())
        if scope in scopes:
            return scopes
        if scopes:
            raise Forbidden(
                f"this request requires a token with the scope {scope}; the one sent has {', '.join(sorted(scopes))}"
            )
        if self._unread:
            raise StorageUnreachable(
                "the token file is missing or cannot be read, so none of its tokens is accepted; run "
                "'resight tokens list' on the server to see why"
            )
        raise Unauthorized(
            "unknown or revoked token; send 'Authorization: Bearer TOKEN' with one of "
            "'resight tokens list'"
        )

    def _scopes(self, token: str) -> frozenset[TokenScope]:
        """Return the scopes of a token, empty if it is unknown. Compares with all tokens, in constant time."""
        sent = digest(token.encode("latin-1"))  # the header's own bytes
        stored = [(token.sha256, frozenset(token.scopes)) for token in self._tokens or ()]
        granted: frozenset[TokenScope] = frozenset()
        for sha256, scopes in (*self._secret, *stored):
            if hmac.compare_digest(sha256, sent):
                granted |= scopes
        return granted

    async def _update(self) -> None:
        if self._file is None:
            return
        age_s = monotonic() - self._read_at_s
        if age_s >= CHECK_S and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read(self._file))
        if age_s >= STALE_S and self._reading is not None:
            _, late = await asyncio.wait((self._reading,), timeout=WAIT_S)
            if late:  # later requests must not wait for it again
                self._read_at_s = monotonic()
                self._keep(f"reading {self._file.url} takes more than {WAIT_S} s")

    async def _read(self, file: TokenFile) -> None:
        started = monotonic()
        try:
            tokens = await asyncio.get_running_loop().run_in_executor(self._reader, _read, file)
        except Exception as error:  # no error may open the API
            self._needed = True
            self._keep(str(error) if isinstance(error, StorageError) else repr(type(error)))
        else:
            if tokens is None and self._tokens is not None:
                self._keep(f"{file.url} is missing")
            else:
                self._adopt(tokens)
        self._read_at_s = started

    def _adopt(self, tokens: tuple[StoredToken, ...] | None) -> None:
        if tokens is not None and tokens != self._tokens:
            log.info("tokens_read", names=[token.name for token in tokens])
        self._needed = self._needed or tokens is not None
        self._tokens, self._unread, self._trouble = tokens, False, ""

    def _keep(self, trouble: str) -> None:
        if trouble != self._trouble:
            count = None if self._tokens is None else len(self._tokens)
            log.warning("tokens_kept", why=trouble, tokens=count)
        self._trouble = trouble


def _read(file: TokenFile) -> tuple[StoredToken, ...] | None:
    """Read the tokens, and record in the home that there are some. Raises StorageError."""
    tokens = file.read()
    if tokens is not None:
        with contextlib.suppress(StorageError):  # the home may be read-only
            file.remember()
    return tokens


class Guard:
    """Middleware that rejects a request without a sufficient token before its body is read.

    While no token is needed, any web page could make its visitor's browser send requests to loopback. Requests with
    the Origin of another site are rejected then, and also those with a host name that DNS could resolve to this
    machine. If tokens are needed, such a page has none to send.
    """

    def __init__(self, app: ASGIApp, access: Access, origins: Collection[str] = ()) -> None:
        self.app = app
        self._access = access
        self._origins = frozenset(origins)

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        if connection["type"] == "http":
            path = connection["path"].removeprefix(connection.get("root_path", ""))
            scope = scope_of(connection["method"], path)
            scopes = frozenset[TokenScope]()
            try:
                if scope is not None:
                    scopes = await self._check(Headers(scope=connection), scope)
            except ResightError as error:
                await refusal(error, path)(connection, receive, send)
                return
            with loads_if(TokenScope.admin in scopes):
                await self.app(connection, receive, send)
            return
        await self.app(connection, receive, send)

    async def _check(self, headers: Headers, scope: TokenScope) -> frozenset[TokenScope]:
        scopes = await self._access.check(headers.get("authorization", ""), scope)
        if self._access.open and self._is_foreign(headers):
            raise Forbidden(
                "requests from pages of other sites are rejected while this API needs no token; add the site to "
                "cors_origins, or make a token with 'resight tokens add'"
            )
        return scopes

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or origin in self._origins:
            return False
        host = headers.get("host", "")
        return origin.partition("://")[2] != host or not _is_fixed(host)


def _is_fixed(host: str) -> bool:
    """Return whether a host, with or without a port, resolves without DNS: localhost, or an IP address."""
    name = re.sub(r":[0-9]*$", "", host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    bracketed = name.startswith("[") and name.endswith("]")
    try:
        address = ipaddress.ip_address(name[1:-1] if bracketed else name)
    except ValueError:
        return False
    return bracketed == (address.version == 6)
