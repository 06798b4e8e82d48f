"""Sessions: which cookies are one, when they end, and whom they name."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from model_store.errors import BadRequest, Forbidden, StorageUnreachable, Unauthorized
from serve.auth.browsers import (
    COOKIE,
    MAX_PERSON_CHARS,
    RENEW_S,
    SESSION_S,
    BrowserSession,
    parse_session,
    person_name,
    session_value,
    set_cookie,
)
from serve.auth.guard import Access
from serve.auth.scopes import STALE_S, Identity, TokenScope
from serve.auth.tokens import KEY_BYTES, TokenFile
from tests.serve.auth.conftest import Clock

ALL = frozenset(TokenScope)
KEY = b"k" * KEY_BYTES


def sent(set_cookie: str, **more: str) -> Headers:
    """The headers of a browser that has received this cookie."""
    return Headers({"cookie": f"other=1; {set_cookie.partition(';')[0]}; theme=dark", **more})


def valued(value: str) -> Headers:
    return sent(f"{COOKIE}={value};")


async def identity_of(access: Access, headers: Headers, scope: TokenScope = TokenScope.detect) -> Identity | str:
    """The sender, or why there is none."""
    try:
        return await access.check(headers, scope)
    except (Unauthorized, Forbidden, StorageUnreachable) as error:
        return type(error).__name__


@pytest.mark.parametrize("secure", [True, False])
def test_the_cookie_is_for_this_site_and_no_script(secure: bool) -> None:
    parts = set_cookie("value", secure).split("; ")
    assert parts[0] == f"{COOKIE}=value"
    assert {"Path=/", "HttpOnly", "SameSite=Strict", f"Max-Age={12 * 3600}"} <= set(parts)
    assert ("Secure" in parts) == secure
    assert not any(part.startswith("Domain") for part in parts)
    assert set_cookie("", secure).startswith(f"{COOKIE}=; Path=/; Max-Age=0;")


@pytest.mark.parametrize("name", ["station-7", "山" * 64])
def test_a_session_is_read_back_as_it_was_written(name: str) -> None:
    session = BrowserSession(name, True, 1_800_000_000, False)
    value = session.value(KEY)
    assert value.isascii()
    assert not set(value) & set(' ",;\\')
    assert parse_session(value) == session
    assert session.is_signed(value, KEY)
    assert not session.is_signed(value, b"x" * KEY_BYTES)
    assert not session.is_signed(value, KEY, "hash of a token")


async def test_a_token_s_session_has_its_name_and_scopes(file: TokenFile) -> None:
    token = file.add("anna", [TokenScope.detect, TokenScope.review], 20)
    access = Access("secret", file)
    cookie = sent(await access.start_session(f" {token}\n", False))
    want = Identity("anna", frozenset({TokenScope.detect, TokenScope.review}), by_session=True, daily_mib=20)
    assert await identity_of(access, cookie, TokenScope.review) == want
    assert await identity_of(access, cookie, TokenScope.admin) == "Forbidden"
    operator = await identity_of(access, sent(await access.start_session("secret", True)))
    assert operator == Identity("operator", ALL, by_session=True)


async def test_a_bearer_token_is_named_and_goes_before_the_session(file: TokenFile) -> None:
    anna, station = file.add("anna", ALL), file.add("station", [TokenScope.detect])
    access = Access("secret", file)
    cookie = await access.start_session(anna, False)
    for token, name in ((station, "station"), ("secret", "operator")):
        by_bearer = await identity_of(access, sent(cookie, authorization=f"Bearer {token}"))
        assert isinstance(by_bearer, Identity)
        assert (by_bearer.name, by_bearer.by_session) == (name, False)
    for wrong in ("Bearer made-up", "Bearer "):
        assert await identity_of(access, sent(cookie, authorization=wrong)) == "Unauthorized"
    by_proxy = await identity_of(access, sent(cookie, authorization="Basic cHJveHk6cHJveHk="))
    assert isinstance(by_proxy, Identity)
    assert by_proxy.name == "anna"


async def test_a_replica_that_did_not_make_a_session_accepts_it(file: TokenFile) -> None:
    token = file.add("anna", ALL)
    cookie = sent(await Access(file=file).start_session(token, False))
    assert await identity_of(Access(file=file), cookie) == Identity("anna", ALL, by_session=True)


async def test_a_session_ends_with_its_token_in_time(file: TokenFile, clock: Clock) -> None:
    token = file.add("anna", ALL)
    access = Access("secret", file)
    cookie = sent(await access.start_session(token, False))
    file.revoke("anna")
    clock.now += STALE_S
    assert await identity_of(access, cookie) == "Unauthorized"
    file.add("anna", ALL)
    clock.now += STALE_S
    assert await identity_of(access, cookie) == "Unauthorized", "another token of the same name"


async def test_a_session_ends_after_its_time_and_is_renewed_by_use(file: TokenFile, clock: Clock) -> None:
    token = file.add("anna", ALL)
    access = Access(file=file)
    first = sent(await access.start_session(token, True))
    assert access.renewed_session(first) is None
    clock.now += RENEW_S
    renewed = access.renewed_session(first)
    assert renewed is not None
    assert "; Secure" in renewed
    clock.now += SESSION_S - RENEW_S - 1
    assert isinstance(await identity_of(access, first), Identity)
    clock.now += 1
    assert await identity_of(access, first) == "Unauthorized"
    assert access.renewed_session(first) is None
    assert isinstance(await identity_of(access, sent(renewed)), Identity)


def forged(value: str) -> list[str]:
    """Return variants of the value of a session's cookie."""
    kind, secure, expires, name, mac = value.split(".")
    parts = [
        [kind, secure, expires, name, mac.upper()],
        [kind, secure, str(int(expires) + 1), name, mac],
        [kind, secure, expires, "Ym9zcw", mac],
        [kind, secure, expires, name[:-1] + chr(ord(name[-1]) + 1), mac],  # the same name, with other unused bits
        [kind, secure, expires, "____", mac],
        ["person", secure, expires, name, mac],
        [kind, "1", expires, name, mac],
    ]
    return [value[:-1], value[:-1] + "é", *map(".".join, parts)]


async def test_a_forged_cookie_is_as_no_cookie(file: TokenFile) -> None:
    token = file.add("anna", ALL)
    file.add("boss", ALL)
    access = Access("secret", file)
    value = (await access.start_session(token, False)).partition(";")[0].partition("=")[2]
    assert isinstance(await identity_of(access, valued(value)), Identity)
    for other in forged(value):
        assert await identity_of(access, valued(other)) == "Unauthorized", other
        assert access.renewed_session(valued(other)) is None
    assert parse_session(value + "\n") is None


async def test_a_cookie_of_another_home_is_as_no_cookie(tmp_path: Path) -> None:
    """Both homes have the same token."""
    here, other = (TokenFile(str(tmp_path / name / "tokens.json")) for name in ("a", "b"))
    token = here.add("anna", ALL)
    Path(other.url).parent.mkdir()
    Path(other.url).write_bytes(Path(here.url).read_bytes())
    cookie = sent(await Access(file=other).start_session(token, False))
    assert await identity_of(Access(file=here), cookie) == "Unauthorized"


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ([""], ""),
        ([f"b=2;{COOKIE}=a ;c"], "a"),
        ([f"{COOKIE}=a; {COOKIE}=b"], ""),
        ([f"{COOKIE}=a", f"{COOKIE}=b"], ""),
        ([f"x{COOKIE}=a"], ""),
        (["; ;=;" * 9999 + f";{COOKIE}=a"], "a"),
    ],
)
def test_one_cookie_is_found_among_others(headers: list[str], value: str) -> None:
    assert session_value(headers) == value


async def test_without_tokens_a_session_names_a_person(file: TokenFile, clock: Clock) -> None:
    access = Access(file=file)
    assert await identity_of(access, Headers()) == Identity("local", ALL)
    cookie = sent(await access.start_session(" Zoe\u0308 B. ", False))
    assert await identity_of(access, cookie) == Identity("Zoë B.", ALL, by_session=True)
    file.add("station", ALL)
    clock.now += STALE_S
    assert await identity_of(access, cookie) == "Unauthorized", "a name is not a token"


@pytest.mark.parametrize("name", ["  ", "x" * (MAX_PERSON_CHARS + 1), "a\nb", "a\u202eb", "\ud800"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="1 to 64 printable"):
        person_name(name)


@pytest.mark.parametrize("text", ["", "a b\r\nSet-Cookie: x=1", "\ud800", "anna"])
async def test_a_wrong_token_starts_no_session(file: TokenFile, text: str) -> None:
    file.add("anna", ALL)
    with pytest.raises(Unauthorized):
        await Access("secret", file).start_session(text, False)


async def test_while_tokens_cannot_be_read_a_session_is_not_taken_for_wrong(file: TokenFile) -> None:
    token = file.add("anna", ALL)
    cookie = sent(await Access(file=file).start_session(token, False))
    Path(file.url).write_text("damaged")
    access = Access("secret", file)
    assert await identity_of(access, cookie) == "StorageUnreachable"
    assert await identity_of(access, Headers()) == "Unauthorized"


def test_the_key_is_made_once_and_for_its_owner_alone(file: TokenFile) -> None:
    keys, gate = list[bytes](), threading.Barrier(8)

    def make() -> None:
        gate.wait()
        keys.append(TokenFile(file.url).session_key())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert len(keys[0]) == KEY_BYTES
    path = Path(file.url).with_name("session.key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == keys[0]


@pytest.mark.parametrize("damage", [b"short"])
async def test_a_key_that_was_cut_off_is_replaced(file: TokenFile, clock: Clock, damage: bytes) -> None:
    token = file.add("anna", ALL)
    access = Access(file=file)
    cookie = sent(await access.start_session(token, False))
    Path(file.url).with_name("session.key").write_bytes(damage)
    clock.now += STALE_S
    assert await identity_of(access, cookie) == "Unauthorized"
    assert len(file.session_key()) == KEY_BYTES


async def test_a_key_that_cannot_be_made_stops_logins_and_no_tokens(
    file: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: TokenFile) -> bytes:
        raise StorageUnreachable("read-only")

    monkeypatch.setattr(TokenFile, "session_key", fail)
    token = file.add("anna", ALL)
    access = Access(file=file)
    with pytest.raises(StorageUnreachable, match="session.key"):
        await access.start_session(token, False)
    assert isinstance(await identity_of(access, Headers({"authorization": f"Bearer {token}"})), Identity)


async def test_a_value_is_compared_in_constant_time(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    token = file.add("anna", ALL)
    access = Access(file=file)
    cookie = sent(await access.start_session(token, False))
    monkeypatch.setattr("serve.auth.browsers.hmac.compare_digest", lambda one, other: False)
    assert await identity_of(access, cookie) == "Unauthorized"
