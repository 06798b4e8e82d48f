"""Rules for requests of browsers: which sites may send them, and where a person without a session is sent.

A browser sends the session's cookie by itself, so a request that changes something must come from a page of this site.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope as Connection

from model_store.errors import Forbidden

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOGIN = "/ui/session"
MAX_NEXT_CHARS = 2000
_LOCAL_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


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
    """Return the redirect of a browser that requests a page to the login, None for other requests.

    `path` begins with the prefix at which the application is mounted, as in the table of scopes.
    """
    is_page = f"{path}/".startswith("/ui/") and not path.startswith("/ui/v1/")
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
