"""Who may do what: the scope each request needs, the tokens that have it, and the guard in front.

request -> Guard -> scope_of(method, path) -> Access.check(authorization, scope) -> the routes, or 401, 403

The guard is a middleware, not a dependency of routes, because FastAPI reads a JSON body before it
solves dependencies, and /docs, mounted apps and unknown paths have none: all of them are closed too.
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
from serve.residents import loads_if
from serve.scopes import STALE_S, Scope
from serve.settings import Settings
from serve.tokens import StoredToken, TokenFile, digest
from serve.v2.errors import refusal

log = structlog.get_logger("resight.access")

RULES: tuple[tuple[str, str, Scope | None], ...] = (
    # load balancers and orchestrators ask these, without a token, and learn only whether it works
    ("GET|HEAD", r"/healthz|/readyz|/v2/health/(live|ready)", None),
    ("POST", r"/v1/(detect|classify)", Scope.detect),
    ("POST", r"/v2/models/[^/]+(/versions/[^/]+)?/infer", Scope.detect),
    ("POST", r"/v2/repository/index", Scope.detect),  # a list, by POST
    ("POST", r"/v1/images", Scope.upload),
    (
        "GET|HEAD",
        r".*",
        Scope.detect,
    ),  # metrics and docs included: nothing there is a secret of admins
)
"""Methods, path, scope: the first that matches. What matches none changes something, so: admin."""

CHECK_S, WAIT_S = 2.0, 2.0
"""A list of tokens this old is read again, while requests go on; with one of STALE_S they wait for the new one, but
not longer than this."""


def scope_of(method: str, path: str) -> Scope | None:
    """The scope a request needs; None: it needs no token."""
    for methods, pattern, scope in RULES:
        if re.fullmatch(methods, method) and re.fullmatch(pattern, path, re.DOTALL):
            return scope
    return Scope.admin


class Access:
    """The tokens of one replica, followed in the background. Use it on one event loop.

    `secret` is RESIGHT_TOKEN, with all scopes. Tokens are needed as soon as there is a secret or a
    `file`, and always when `required`. A file that vanishes or is damaged changes nothing for those
    it has let in; one that was never read well, or is missing although tokens were made, lets nobody in.
    """

    def __init__(
        self, secret: str = "", file: TokenFile | None = None, required: bool = False
    ) -> None:
        own = secret.strip().encode("utf-8", "surrogateescape")
        self._own = ((digest(own), frozenset(Scope)),) if own else ()
        self._file = file
        self._tokens: tuple[StoredToken, ...] | None = None
        self._needed = required or bool(own)
        self._unread = file is not None  # no look at the file has ended well
        self._trouble = ""
        self._looked_at = -STALE_S
        self._reading: asyncio.Task[None] | None = None
        # of its own: where look-ups of requests wait as well, their sender could delay his own revocation
        self._reader = ThreadPoolExecutor(1, "tokens")

    @classmethod
    def of(cls, settings: Settings, required: bool = False) -> Access:
        """Follow RESIGHT_TOKEN and RESIGHT_TOKENS; a file that is named is required.

        A home without Ray's token is not the one that 'resight up' has used: its disk may be missing, and the
        tokens with it. So a token is required there, too.
        """
        known = settings.ray_token_path.exists()
        required = required or bool(settings.tokens) or not known
        return cls(settings.token, TokenFile.of(settings), required)

    @property
    def open(self) -> bool:
        """Nobody needs a token: none was ever made, and none is required."""
        return not (self._needed or self._unread)

    async def check(self, authorization: str, scope: Scope) -> frozenset[Scope]:
        """The scopes of the token; all of them while nobody needs one.

        Raises Unauthorized, Forbidden, and StorageUnreachable before the tokens could be read.
        """
        await self._follow()
        if self.open:
            return frozenset(Scope)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized(
                "send the header 'Authorization: Bearer TOKEN'; 'resight tokens add' makes one"
            )
        held = self._scopes(token.strip())
        if scope in held:
            return held
        if held:
            raise Forbidden(
                f"this needs a token with the scope {scope}; the one sent has {', '.join(sorted(held))}"
            )
        if self._unread:
            raise StorageUnreachable(
                "the list of tokens is missing or cannot be read, so no token of it is accepted; on the server, "
                "'resight tokens list' says why"
            )
        raise Unauthorized(
            "no such token, or it was revoked; send 'Authorization: Bearer TOKEN' with one of "
            "'resight tokens list'"
        )

    def _scopes(self, token: str) -> frozenset[Scope]:
        """Empty for an unknown token. Looks at all of them, so that time tells nothing."""
        sent = digest(token.encode("latin-1"))  # the header's own bytes
        known = [(token.sha256, frozenset(token.scopes)) for token in self._tokens or ()]
        held: frozenset[Scope] = frozenset()
        for sha256, scopes in (*self._own, *known):
            if hmac.compare_digest(sha256, sent):
                held |= scopes
        return held

    async def _follow(self) -> None:
        if self._file is None:
            return
        age_s = monotonic() - self._looked_at
        if age_s >= CHECK_S and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._look(self._file))
        if age_s >= STALE_S and self._reading is not None:
            _, late = await asyncio.wait((self._reading,), timeout=WAIT_S)
            if late:  # the next requests do not wait for it as well
                self._looked_at = monotonic()
                self._keep(f"reading {self._file.url} takes more than {WAIT_S} s")

    async def _look(self, file: TokenFile) -> None:
        started = monotonic()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._reader, _read, file)
        except Exception as error:  # whatever it is, nobody is let in for it
            self._needed = True
            self._keep(str(error) if isinstance(error, StorageError) else repr(type(error)))
        else:
            if found is None and self._tokens is not None:
                self._keep(f"{file.url} is gone")
            else:
                self._adopt(found)
        self._looked_at = started

    def _adopt(self, found: tuple[StoredToken, ...] | None) -> None:
        if found is not None and found != self._tokens:
            log.info("tokens_read", names=[token.name for token in found])
        self._needed = self._needed or found is not None
        self._tokens, self._unread, self._trouble = found, False, ""

    def _keep(self, trouble: str) -> None:
        if trouble != self._trouble:
            known = None if self._tokens is None else len(self._tokens)
            log.warning("tokens_kept", why=trouble, tokens=known)
        self._trouble = trouble


def _read(file: TokenFile) -> tuple[StoredToken, ...] | None:
    """Read the tokens; where there are any, remember it. Raises StorageError."""
    tokens = file.read()
    if tokens is not None:
        with contextlib.suppress(StorageError):  # a home that is read-only
            file.remember()
    return tokens


class Guard:
    """Middleware: a request without the right token is answered before its body is read.

    While no token exists, any web page could make its reader's browser post to loopback: what carries
    the Origin of another site is refused then, and so is a site whose name could be made to mean this
    machine. With tokens, such a page does not know one.
    """

    def __init__(self, app: ASGIApp, access: Access, origins: Collection[str] = ()) -> None:
        self.app = app
        self._access = access
        self._origins = frozenset(origins)

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        if connection["type"] == "http":
            path = connection["path"].removeprefix(connection.get("root_path", ""))
            scope = scope_of(connection["method"], path)
            held = frozenset[Scope]()
            try:
                if scope is not None:
                    held = await self._check(Headers(scope=connection), scope)
            except ResightError as error:
                await refusal(error, path)(connection, receive, send)
                return
            with loads_if(Scope.admin in held):
                await self.app(connection, receive, send)
            return
        await self.app(connection, receive, send)

    async def _check(self, headers: Headers, scope: Scope) -> frozenset[Scope]:
        held = await self._access.check(headers.get("authorization", ""), scope)
        if self._access.open and self._is_foreign(headers):
            raise Forbidden(
                "a page of another site asks, and no token guards this API; name the site in "
                "cors_origins, or make a token with 'resight tokens add'"
            )
        return held

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or origin in self._origins:
            return False
        host = headers.get("host", "")
        return origin.partition("://")[2] != host or not _is_fixed(host)


def _is_fixed(host: str) -> bool:
    """Whether nobody's DNS says where it is: localhost, or an address; with or without a port."""
    name = re.sub(r":[0-9]*$", "", host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    bracketed = name.startswith("[") and name.endswith("]")
    try:
        address = ipaddress.ip_address(name[1:-1] if bracketed else name)
    except ValueError:
        return False
    return bracketed == (address.version == 6)
