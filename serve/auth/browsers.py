"""Requests of browsers: which sites may send them, sessions, and where a person without a session is sent.

A session is a signed cookie with the name of a token or of a person. No server stores it.

value := ("token" | "person") "." secure "." expires_at_s "." name in base64url "." HMAC-SHA256 in hex

The HMAC covers the text before it and the stored hash of the token. Each replica can check it with the key of the home,
and a session ends with its token. While no token is needed, a session contains the name that a person has typed.
A browser sends the cookie by itself, so a request that changes something must come from a page of this site.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope as Connection

from model_store.errors import BadRequest, Forbidden

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOGIN = "/ui/session"
MAX_NEXT_CHARS = 2000
_LOCAL_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")
COOKIE = "resight_session"
SESSION_S = 12 * 60 * 60
"""Seconds after which a session ends that is not used."""
RENEW_S = 10 * 60
"""Age of a cookie in seconds from which an answer renews it."""
MAX_PERSON_CHARS = 64
_VALUE = re.compile(r"(token|person)\.([01])\.([1-9][0-9]{0,11})\.([A-Za-z0-9_-]{2,344})\.[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """Content of a cookie. `is_secure`: the browser sends it over https only."""

    name: str
    is_person: bool
    expires_at_s: int
    is_secure: bool

    def value(self, key: bytes, credential: str = "") -> str:
        """Return the value of the cookie; `credential` is the stored hash of the token."""
        kind = "person" if self.is_person else "token"
        name = base64.urlsafe_b64encode(self.name.encode()).decode().rstrip("=")
        text = f"{kind}.{int(self.is_secure)}.{self.expires_at_s}.{name}"
        mac = hmac.new(key, f"{credential}.{text}".encode(), hashlib.sha256)
        return f"{text}.{mac.hexdigest()}"

    def is_signed(self, value: str, key: bytes, credential: str = "") -> bool:
        """Return whether a value was made with this key and credential. Compares in constant time."""
        return hmac.compare_digest(self.value(key, credential), value)


def parse_session(value: str) -> BrowserSession | None:
    """Return the content of a cookie, of which the signature is still to be checked; None if it is malformed."""
    match = _VALUE.fullmatch(value)
    if match is None:
        return None
    kind, secure, expires_at_s, text = match.groups()
    try:
        name = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return BrowserSession(name, kind == "person", int(expires_at_s), secure == "1")


def session_value(headers: Iterable[str]) -> str:
    """Return the value of the session's cookie in the headers `Cookie`, else "".

    Returns "" also for several different values: a page of a neighbouring host name may have set one of them.
    """
    pairs = (pair.strip().partition("=") for header in headers for pair in header.split(";"))
    values = {value for name, _, value in pairs if name == COOKIE}
    return values.pop() if len(values) == 1 else ""


def set_cookie(value: str, is_secure: bool) -> str:
    """Return the header `Set-Cookie` that starts a session, or ends it if `value` is empty."""
    secure = "; Secure" if is_secure else ""
    max_age_s = SESSION_S if value else 0
    return f"{COOKIE}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"


def person_name(text: str) -> str:
    """Return the name of a person as it is stored. Raises BadRequest."""
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= MAX_PERSON_CHARS or not name.isprintable():
        raise BadRequest(f"invalid name: use 1 to {MAX_PERSON_CHARS} printable characters")
    return name


def is_foreign(headers: Headers, origins: Collection[str]) -> bool:
    """Return whether a page of another site sends the request, or one with a host name that comes from DNS."""
    origin = headers.get("origin")
    if origin is None or origin in origins:
        return False
    return not _is_of_host(origin, headers) or not _is_fixed(headers.get("host", ""))


def is_seen_elsewhere(headers: Headers, origins: Collection[str]) -> bool:
    """Return whether a page of another site could read or start a request without `Origin`, while no token is needed.

    Its own host name may come to mean this machine (DNS rebinding), and its tags for images may name any address.
    """
    host = headers.get("host", "")
    own = [origin.partition("://")[2] for origin in origins]
    crosses = headers.get("sec-fetch-site") == "cross-site"
    return not (_is_fixed(host) or host in own) or (crosses and headers.get("sec-fetch-mode") != "navigate")


def require_same_origin(headers: Headers) -> None:
    """Raise Forbidden unless a page of this site, or the user, sends the request.

    Browsers send Sec-Fetch-Site to https and to localhost only; elsewhere `Origin` must have the host of the request.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        if site in ("same-origin", "none"):
            return
    elif origin is not None and _is_of_host(origin, headers):
        return
    raise Forbidden(
        "a request with the cookie of a session must come from a page of this site, by its header Sec-Fetch-Site or "
        "Origin; a program sends 'Authorization: Bearer TOKEN' and no cookie"
    )


def may_lack_cookie(headers: Headers) -> bool:
    """Return whether a link on another site may have led here: browsers then withhold the session's cookie."""
    return headers.get("sec-fetch-site", "cross-site") == "cross-site"


def is_https(connection: Connection, headers: Headers) -> bool:
    """Return whether the browser uses https. A proxy that ends TLS may leave only `Origin` to show it."""
    return connection.get("scheme") == "https" or headers.get("origin", "").startswith("https://")


def login_redirect(connection: Connection, headers: Headers, path: str) -> Response | None:
    """Return the redirect of a browser that requests a page, or /, to the login; None for other requests.

    `path` begins with the prefix at which the application is mounted, as in the table of scopes.
    """
    is_root = path == "/" and not connection.get("root_path")
    is_page = is_root or (f"{path}/".startswith("/ui/") and not path.startswith("/ui/v1/"))
    is_read = connection["method"] in ("GET", "HEAD")
    has_bearer = headers.get("authorization", "").lower().startswith("bearer")
    if not is_page or not is_read or has_bearer or "text/html" not in headers.get("accept", ""):
        return None
    outside = connection.get("root_path", "").removesuffix("/ui")
    query = connection["query_string"].decode("latin-1")
    wanted = quote(outside + path) + (f"?{query}" if query else "")
    follow = f"?next={quote(wanted, safe='/')}" if local_path(wanted) else ""
    headers_ = {"Location": f"{quote(outside)}{LOGIN}{follow}", "Cache-Control": "no-store"}
    return Response(status_code=303, headers=headers_)


def local_path(text: str) -> str | None:
    """Return `text` if it is a path of this site, without host and with printable ASCII only, else None."""
    return text if len(text) <= MAX_NEXT_CHARS and _LOCAL_PATH.fullmatch(text) else None


def _is_of_host(origin: str, headers: Headers) -> bool:
    """Return whether the origin has the host and the port of the request; the proxy may have ended TLS."""
    host = headers.get("host", "")
    scheme, _, origin_host = origin.partition("://")
    return bool(host) and scheme in ("http", "https") and origin_host == host


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
