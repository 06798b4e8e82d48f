"""Authorisation of HTTP requests: the scope that each request requires, and the tokens and sessions that have it.

request -> Guard -> scope_of(method, path) -> Access.check(headers, scope) -> Identity -> the routes, or 401, 403

The guard is a middleware, not a dependency of the routes: FastAPI reads a JSON body before it resolves dependencies.
A middleware also covers paths without dependencies: /docs, mounted applications and unknown paths.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic, time
from typing import NamedTuple

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from model_store.errors import Forbidden, ResightError, StorageError, StorageUnreachable, Unauthorized
from serve.api.problems import of_error
from serve.auth import browsers
from serve.auth.scopes import IDENTITY, LOCAL, OPERATOR, STALE_S, Identity, TokenScope
from serve.auth.tokens import KEY_BYTES, KEY_FILE, StoredToken, TokenFile, digest
from serve.models.resolver import loads_if
from serve.settings import Settings

log = structlog.get_logger("resight.access")

RULES: tuple[tuple[str, str, TokenScope | None], ...] = (
    # load balancers and orchestrators call these without a token; the answers contain only the health
    ("GET|HEAD", r"/healthz|/readyz|/v2/health/(live|ready)|/antenna/(livez|readyz)", None),
    ("POST", r"/v1/(detect|classify|embed)", TokenScope.detect),
    ("POST", r"/v2/models/[^/]+(/versions/[^/]+)?/infer", TokenScope.detect),
    ("POST", r"/v2/repository/index", TokenScope.detect),  # a list, by POST
    ("POST", r"(/antenna)?/process", TokenScope.detect),
    ("POST", r"/v1/images|/ui/v1/uploads/check", TokenScope.upload),
    # the login opens without a token, and so do its style sheet and its modules
    ("GET|HEAD", r"/ui/static/.*", None),
    ("GET|HEAD", r"/ui/session", None),
    ("POST", r"/ui/v1/session(/(end|look))?", None),
    ("POST", r"/ui/v1/((assertions|individuals)(/.*)?|exports)", TokenScope.review),
    ("GET|HEAD", r".*", TokenScope.detect),  # also metrics and docs: they contain nothing secret
)
"""Methods, path and scope; the first match applies. Requests without a match change something and require admin.

A path contains the prefix of the page, `/ui`, but not that of the other applications.
"""

OF_ANTENNA = r"/antenna/.*|/process"
"""Paths on which the password of basic credentials is accepted as the token."""
CHECK_S, WAIT_S = 2.0, 2.0
"""Seconds after which the tokens are read again in the background, and the maximum wait for them.

Requests wait only if the tokens are older than STALE_S.
"""


ALL_SCOPES = frozenset(TokenScope)


def scope_of(method: str, path: str) -> TokenScope | None:
    """Return the scope that a request requires, or None if it requires no token."""
    for methods, pattern, scope in RULES:
        if re.fullmatch(methods, method) and re.fullmatch(pattern, path, re.DOTALL):
            return scope
    return TokenScope.admin


class Credential(NamedTuple):
    """A token that is accepted: its hash, scopes and quota."""

    name: str
    sha256: str
    scopes: frozenset[TokenScope]
    daily_mib: int | None = None


class Access:
    """The tokens that one replica accepts, updated in the background. Use it on one event loop.

    `secret` is RESIGHT_TOKEN, which has all scopes. A token is required as soon as there is a secret or a `file`, and
    always if `required` is True. If the file disappears or is damaged, the tokens read before stay valid. If it
    was never read successfully, or is missing although tokens were made, none of its tokens is accepted.

    Sessions are signed with the key next to the file; without a file, they end with this process.
    """

    def __init__(self, secret: str = "", file: TokenFile | None = None, required: bool = False) -> None:
        own = secret.strip().encode("utf-8", "surrogateescape")
        self._secret = (Credential(OPERATOR, digest(own), ALL_SCOPES),) if own else ()
        self._file = file
        self._key = secrets.token_bytes(KEY_BYTES) if file is None else None
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

        A token is also required if the home lacks Ray's token. Such a home was never used by 'resight up' or 'resight
        serve': its disk may be missing, and the token file with it.
        """
        required = required or bool(settings.tokens) or not settings.ray_token_path.exists()
        return cls(settings.token, TokenFile.of(settings), required)

    @property
    def open(self) -> bool:
        """True if requests need no token: none was ever made, and none is required."""
        return not (self._needed or self._unread)

    async def check(self, headers: Headers, scope: TokenScope) -> Identity:
        """Return the sender of a request: by its bearer token if it has one, else by its session.

        It has all scopes while no token is needed. Raises Unauthorized, Forbidden, or StorageUnreachable if the tokens
        have not been read yet.
        """
        await self.update()
        scheme, _, token = headers.get("authorization", "").partition(" ")
        has_bearer = scheme.lower() == "bearer"  # a proxy in front may require another scheme
        session = self._session(headers) if self.open or not has_bearer else None
        if session is not None:
            of = session[1]
            identity = Identity(session[0].name, of.scopes, True, of.daily_mib)
        elif self.open:
            identity = Identity(LOCAL, ALL_SCOPES)
        else:
            sent = token.strip().encode("latin-1") if has_bearer else b""
            cookie = browsers.session_value(headers.getlist("cookie"))
            of = self._credential(sent, browsers.parse_session(cookie) is not None)
            identity = Identity(of.name, of.scopes, daily_mib=of.daily_mib)
        if scope not in identity.scopes:
            raise Forbidden(
                f"this request requires a token with the scope {scope}; the one sent has "
                f"{', '.join(sorted(identity.scopes))}"
            )
        return identity

    async def start_session(self, text: str, is_secure: bool) -> str:
        """Return the header `Set-Cookie` of a new session of a token, or of a person's name while none is needed.

        Raises BadRequest for an invalid name, and Unauthorized, Forbidden and StorageUnreachable as `check`.
        """
        await self.update()
        if self.open:
            name, credential = browsers.person_name(text), ""
        else:
            name, credential, scopes, _ = self._credential(text.strip().encode("utf-8", "replace"))
            if TokenScope.detect not in scopes:
                raise Forbidden("the page requires a token with the scope detect")
        if self._key is None:
            raise StorageUnreachable(f"{KEY_FILE} next to the token file cannot be read or made")
        session = browsers.BrowserSession(name, self.open, int(time()) + browsers.SESSION_S, is_secure)
        return browsers.set_cookie(session.value(self._key, credential), is_secure)

    def renewed_session(self, headers: Headers) -> str | None:
        """Return the header `Set-Cookie` that extends the session of a request, None if it is new or invalid."""
        verified, now_s = self._session(headers), int(time())
        if verified is None or self._key is None:
            return None
        session, credential = verified
        if session.expires_at_s - now_s > browsers.SESSION_S - browsers.RENEW_S:
            return None
        later = replace(session, expires_at_s=now_s + browsers.SESSION_S)
        return browsers.set_cookie(later.value(self._key, credential.sha256), session.is_secure)

    def _session(self, headers: Headers) -> tuple[browsers.BrowserSession, Credential] | None:
        """Return the valid session of a request with its credential, or None."""
        value = browsers.session_value(headers.getlist("cookie"))
        session = browsers.parse_session(value)
        if session is None or self._key is None or session.expires_at_s <= time():
            return None
        granted = [Credential(session.name, "", ALL_SCOPES)] if self.open else []
        if not session.is_person:
            granted = [of for of in self._stored() if of.name == session.name]
        return next(((session, of) for of in granted if session.is_signed(value, self._key, of.sha256)), None)

    def _stored(self) -> Iterator[Credential]:
        """Yield every token that is accepted."""
        yield from self._secret
        for token in self._tokens or ():
            yield Credential(token.name, token.sha256, frozenset(token.scopes), token.daily_mib)

    def _credential(self, token: bytes, has_session: bool = False) -> Credential:
        """Return the credential of a token. Compares with all tokens, in constant time.

        Raises Unauthorized. Raises StorageUnreachable if the tokens have not been read yet, and there is a token, or a
        session that could not be checked.
        """
        if not token and not (has_session and self._unread):
            raise Unauthorized("send the header 'Authorization: Bearer TOKEN'; 'resight tokens add' makes one")
        sent = digest(token)
        equal = [of for of in self._stored() if hmac.compare_digest(of.sha256, sent)]
        if equal:
            return equal[0]._replace(scopes=frozenset[TokenScope]().union(*(of.scopes for of in equal)))
        if self._unread:
            raise StorageUnreachable(
                "the token file is missing or cannot be read, so none of its tokens is accepted; run "
                "'resight tokens list' on the server to see why"
            )
        raise Unauthorized(
            "unknown or revoked token; send 'Authorization: Bearer TOKEN' with one of 'resight tokens list'"
        )

    async def update(self) -> None:
        """Read the tokens again if they are old; wait for them if they are too old to use."""
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
            tokens, key = await asyncio.get_running_loop().run_in_executor(self._reader, _read, file)
        except Exception as error:  # no error may open the API
            self._needed = True
            self._keep(str(error) if isinstance(error, StorageError) else repr(type(error)))
        else:
            self._key = key or self._key
            if tokens is None and self._tokens is not None:
                self._keep(f"{file.url} is missing")
            else:
                if tokens is not None and tokens != self._tokens:
                    log.info("tokens_read", names=[token.name for token in tokens])
                self._needed = self._needed or tokens is not None
                self._tokens, self._unread, self._trouble = tokens, False, ""
        self._read_at_s = started

    def _keep(self, trouble: str) -> None:
        if trouble != self._trouble:
            count = None if self._tokens is None else len(self._tokens)
            log.warning("tokens_kept", why=trouble, tokens=count)
        self._trouble = trouble


def bearer_of_basic(headers: Headers) -> Headers:
    """Return headers with the password of basic credentials as the bearer token; others unchanged.

    Antenna sends no header for tokens, but it sends user and password of its endpoint URL.
    """
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return headers
    try:
        token = base64.b64decode(text, validate=True).decode("latin-1").partition(":")[2]
    except ValueError:
        token = ""
    changed = headers.mutablecopy()
    changed["authorization"] = f"Bearer {token}"
    return Headers(raw=changed.raw)


def _read(file: TokenFile) -> tuple[tuple[StoredToken, ...] | None, bytes | None]:
    """Read the tokens and the key of sessions, and record in the home that there are some. Raises StorageError."""
    tokens, key = file.read(), None
    with contextlib.suppress(StorageError):  # the home may be read-only
        key = file.session_key()
        if tokens is not None:
            file.remember()
    return tokens, key


class Guard:
    """Middleware that rejects a request without a sufficient token before its body is read.

    While no token is needed, any web page could make its visitor's browser send requests to loopback. Requests with
    the Origin of another site are rejected then, and also those with a host name that DNS could resolve to this
    machine. If tokens are needed, such a page has none to send.

    Browsers send the cookie of a session by themselves. A request with one that changes something must therefore come
    from a page of this site, and so must a login.
    """

    def __init__(self, app: ASGIApp, access: Access, origins: Collection[str] = (), prefix: str = "") -> None:
        """`prefix` is the path at which the application is mounted, if the paths in `RULES` have it."""
        self.app = app
        self._access = access
        self._origins = frozenset(origins)
        self._prefix = prefix

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        if connection["type"] != "http":
            await self.app(connection, receive, send)
            return
        path = self._prefix + connection["path"].removeprefix(connection.get("root_path", ""))
        headers = Headers(scope=connection)
        if re.fullmatch(OF_ANTENNA, path):
            headers = bearer_of_basic(headers)
        try:
            identity = await self._check(connection["method"], path, headers)
        except ResightError as error:
            login = browsers.login_redirect(connection, headers, path) if isinstance(error, Unauthorized) else None
            await (login or of_error(error, path))(connection, receive, send)
            return
        if identity is not None:
            connection.setdefault(IDENTITY, identity)  # a forwarded request has its sender already
            if identity.by_session and (cookie := self._access.renewed_session(headers)):
                send = _with_cookie(send, cookie)
        with loads_if(identity is not None and TokenScope.admin in identity.scopes):
            await self.app(connection, receive, send)

    async def _check(self, method: str, path: str, headers: Headers) -> Identity | None:
        """Return the sender of a request, None if it needs no token. Raises as `Access.check`."""
        scope, changes = scope_of(method, path), method not in browsers.SAFE_METHODS
        if scope is None and not changes:
            return None
        identity = None if scope is None else await self._access.check(headers, scope)
        await self._access.update()
        if self._access.open and (
            browsers.is_foreign(headers, self._origins)
            or (path.startswith("/ui/") and browsers.is_seen_elsewhere(headers, self._origins))
        ):
            raise Forbidden(
                "requests from pages of other sites are rejected while this API needs no token; add the site to "
                "cors_origins, or make a token with 'resight tokens add'"
            )
        if changes and (identity is None or identity.by_session):
            browsers.require_same_origin(headers)
        return identity


def _with_cookie(send: Send, cookie: str) -> Send:
    """Add the cookie to an answer that is text.

    Pictures are not included: an answer to one may arrive after the session has been ended, and would start it again.
    """

    async def send_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            is_text = headers.get("content-type", "").startswith(("text/html", "application/json"))
            if "set-cookie" not in headers and is_text:
                headers.append("set-cookie", cookie)
                message = {**message, "headers": headers.raw}
        await send(message)

    return send_cookie
