"""Sessions of browsers: a signed cookie with the name of a token or of a person. No server stores a session.

value := ("token" | "person") "." secure "." expires_at_s "." name in base64url "." HMAC-SHA256 in hex

The HMAC covers the text before it and the stored hash of the token. Each replica can check it with the key of the home,
and a session ends with its token. While no token is needed, a session contains the name that a person has typed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from model_store.errors import BadRequest

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
