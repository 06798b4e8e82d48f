"""Who is let in, and what happens to the list of tokens while requests come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.datastructures import Headers

from model_store.errors import Forbidden, StorageUnreachable, Unauthorized
from serve.auth import guard as access_module
from serve.auth.guard import Access, scope_of
from serve.auth.scopes import STALE_S, TokenScope
from serve.auth.tokens import TokenFile
from serve.cluster.head import token_path
from serve.settings import Settings
from tests.serve.auth.conftest import Clock

ALL = frozenset(TokenScope)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def bearer(token: str | None) -> Headers:
    return Headers({} if token is None else {"authorization": f"Bearer {token}"})


async def outcome(access: Access, token: str | None, scope: TokenScope = TokenScope.detect) -> str:
    """ "in", or why not."""
    try:
        await access.check(bearer(token), scope)
    except (Unauthorized, Forbidden, StorageUnreachable) as error:
        return type(error).__name__
    return "in"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "", "detect"),
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("GET", "/v2/health/live", None),
        ("GET", "/v2/health/ready", None),
        ("GET", "/v2/health/ready/", "detect"),
        ("GET", "/x\n/healthz", "detect"),
        ("POST", "/healthz", "admin"),
        ("POST", "/v1/detect", "detect"),
        ("POST", "/v1/models/detect", "admin"),
        ("DELETE", "/v1/models/deer", "admin"),
        ("POST", "/v1/images", "upload"),
        ("POST", "/v2/models/deer/versions/3/infer", "detect"),
        ("POST", "/v2/models/deer/versions/3/other/infer", "admin"),
        ("POST", "/v2/repository/index", "detect"),
        ("POST", "/v2/repository/models/infer/unload", "admin"),
        ("OPTIONS", "/v1/detect", "admin"),
        ("POST", "/v1/something/new", "admin"),
        ("GET", "/ui/static/0000/page.css", None),
        ("GET", "/ui/session", None),
        ("POST", "/ui/v1/session", None),
        ("POST", "/ui/v1/session/end", None),
        ("POST", "/ui/v1/session/look", None),
        ("GET", "/ui/v1/session/end", "detect"),
        ("DELETE", "/ui/v1/session", "admin"),
        ("POST", "/ui/session", "admin"),
        ("POST", "/ui/v1/exports", "review"),
        ("POST", "/ui/v1/uploads/check", "upload"),
        ("POST", "/ui/static/0000/page.css", "admin"),
        ("POST", "/ui/v1/assertions/undo", "review"),
        ("POST", "/ui/v1/individuals", "review"),
        ("PUT", "/ui/v1/individuals/threshold", "admin"),
        ("POST", "/ui/v1/assertionsx", "admin"),
        ("POST", "/v1/assertions", "admin"),
    ],
)
def test_every_request_has_its_scope_and_what_changes_things_is_for_admins(
    method: str, path: str, scope: str | None
) -> None:
    assert scope_of(method, path) == scope


@pytest.mark.parametrize("scope", TokenScope)
@pytest.mark.parametrize("held", [(), (TokenScope.upload, TokenScope.admin)])
async def test_a_token_may_what_its_scopes_say_and_nothing_else(
    file: TokenFile, scope: TokenScope, held: tuple[TokenScope, ...]
) -> None:
    token = file.add("station", held) if held else "made-up"
    want = "in" if scope in held else "Forbidden" if held else "Unauthorized"
    file.add("other", ALL)
    assert await outcome(Access(file=file), token, scope) == want


async def test_a_refusal_names_the_scopes_and_never_the_token(file: TokenFile) -> None:
    token = file.add("station", [TokenScope.detect, TokenScope.upload])
    with pytest.raises(Forbidden, match="scope admin; the one sent has detect, upload") as refused:
        await Access(file=file).check(bearer(token), TokenScope.admin)
    assert token not in repr(refused.value)
    with pytest.raises(Unauthorized) as unknown:
        await Access(file=file).check(bearer("made-up-secret"), TokenScope.admin)
    assert "made-up" not in repr(unknown.value)


@pytest.mark.parametrize(
    ("authorization", "want"),
    [
        ("", Unauthorized),
        ("Bearer ", Unauthorized),
        ("secret", Unauthorized),
        ("Basic secret", Unauthorized),
        ("Bearer secret2", Unauthorized),
        ("Bearer secret", None),
        ("bearer  secret ", None),
    ],
)
async def test_the_header_is_a_bearer_token_or_nothing(authorization: str, want: type[Exception] | None) -> None:
    access, headers = Access("secret"), Headers({"authorization": authorization})
    if want is None:
        await access.check(headers, TokenScope.admin)
        return
    with pytest.raises(want, match="Bearer TOKEN"):
        await access.check(headers, TokenScope.admin)


async def test_a_token_is_compared_with_all_of_them_wherever_it_is_found(
    file: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_, last = [file.add(f"station-{i}", ALL) for i in range(5)]
    access = Access("secret", file)
    compared: list[int] = []

    def compare(one: str, other: str) -> bool:
        compared[-1] += 1
        return one == other

    monkeypatch.setattr("serve.auth.guard.hmac.compare_digest", compare)
    for token in ("secret", first, last, "unknown"):
        compared.append(0)
        await outcome(access, token)
    assert compared == [6, 6, 6, 6]


@pytest.mark.parametrize("secret", ["", "\n"])
async def test_without_secret_and_file_all_are_let_in_unless_a_token_is_required(secret: str) -> None:
    assert await outcome(Access(secret), None, TokenScope.admin) == "in"
    assert await outcome(Access(secret, required=True), None) == "Unauthorized"
    assert await outcome(Access(secret, required=True), "") == "Unauthorized"
    assert await outcome(Access(secret, required=True), "any") == "Unauthorized"


async def test_the_first_token_closes_the_api_and_the_last_one_does_not_open_it(file: TokenFile, clock: Clock) -> None:
    access = Access(file=file)
    assert await outcome(access, None) == "in"
    assert access.open
    file.add("station", ALL)
    clock.now += STALE_S
    assert await outcome(access, None) == "Unauthorized"
    file.revoke("station")
    clock.now += STALE_S
    assert await outcome(access, None) == "Unauthorized"
    assert not access.open


async def test_slow_storage_delays_one_moment_and_not_every_request(
    file: TokenFile, clock: Clock, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    token = file.add("station", ALL)
    access = Access("secret", file)
    assert await outcome(access, token) == "in"
    gate = threading.Event()
    monkeypatch.setattr(TokenFile, "read", lambda _: gate.wait(10) and ())
    monkeypatch.setattr(access_module, "WAIT_S", 0.05)
    clock.now += STALE_S
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await outcome(access, token) == "in"
    assert loop.time() - started >= 0.05
    started = loop.time()
    assert [await outcome(access, token) for _ in range(10)] == ["in"] * 10
    assert loop.time() - started < 0.05
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["tokens_kept"]
    gate.set()


async def test_before_the_first_list_is_there_only_the_secret_works(
    file: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = file.add("station", ALL)
    gate = threading.Event()
    monkeypatch.setattr(TokenFile, "read", lambda _: gate.wait(10) and ())
    monkeypatch.setattr(access_module, "WAIT_S", 0.01)
    assert await outcome(Access(file=file), None) == "Unauthorized"
    access = Access("secret", file)
    assert await outcome(access, None) == "Unauthorized"
    assert await outcome(access, token) == "StorageUnreachable"
    assert await outcome(access, "secret", TokenScope.admin) == "in"
    gate.set()


def gone(path: Path) -> None:
    path.unlink()


def of_another_kind(path: Path) -> None:
    path.write_text('{"tokens": [{"name": "station", "sha256": "plain-secret"}]}')


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("spoil", [gone, of_another_kind, a_folder])
async def test_a_file_that_is_spoilt_keeps_the_last_good_list_and_says_so_once(
    file: TokenFile, clock: Clock, logs: list[Any], spoil: Any
) -> None:
    token = file.add("station", [TokenScope.detect])
    access = Access(file=file)
    assert await outcome(access, token) == "in"
    spoil(Path(file.url))
    for _ in range(3):
        clock.now += STALE_S
        assert await outcome(access, token) == "in"
        assert await outcome(access, token, TokenScope.admin) == "Forbidden"
        assert await outcome(access, "other") == "Unauthorized"
    (warning,) = [line for line in logs if line["log_level"] == "warning"]
    assert (warning["event"], warning["tokens"]) == ("tokens_kept", 1)
    assert file.url in warning["why"]
    assert "plain-secret" not in str(logs)


@pytest.mark.parametrize("spoil", [of_another_kind, a_folder])
async def test_a_file_that_was_never_good_lets_nobody_in_but_the_secret(
    file: TokenFile, clock: Clock, spoil: Any
) -> None:
    spoil(Path(file.url))
    access = Access("secret", file)
    assert await outcome(access, "made-up") == "StorageUnreachable"
    assert await outcome(access, None) == "Unauthorized"
    assert await outcome(access, "secret", TokenScope.admin) == "in"
    (Path(file.url).rmdir if spoil is a_folder else Path(file.url).unlink)()
    token = file.add("station", ALL)
    clock.now += STALE_S
    assert await outcome(access, token) == "in"


async def test_an_error_nobody_thought_of_lets_nobody_in(
    file: TokenFile, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    def fail(_: TokenFile) -> None:
        raise LookupError("plain-secret")

    monkeypatch.setattr(TokenFile, "read", fail)
    assert await outcome(Access(file=file), None) == "Unauthorized"
    assert "LookupError" in logs[0]["why"]
    assert "plain-secret" not in str(logs)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that 'resight up' has used, without tokens."""
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    for name in ("RESIGHT_TOKENS", "RESIGHT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    token_path(Settings())
    return tmp_path / "home"


async def test_a_token_file_that_is_named_and_not_there_lets_nobody_in(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await outcome(Access.of(Settings()), None) == "in"
    assert await outcome(Access.of(Settings(), required=True), None) == "Unauthorized"
    monkeypatch.setenv("RESIGHT_TOKENS", str(tmp_path / "elsewhere.json"))
    assert await outcome(Access.of(Settings()), None) == "Unauthorized"
    monkeypatch.setenv("RESIGHT_TOKEN", "secret")
    assert await outcome(Access.of(Settings()), "secret") == "in"


def moved_to_a_disk(home: Path, disk: Path) -> None:
    """The list on a disk of its own, behind a link."""
    disk.mkdir()
    (home / "tokens.json").rename(disk / "tokens.json")
    (home / "tokens.json").symlink_to(disk / "tokens.json")
    assert TokenFile.of(Settings()).read()
    disk.rename(f"{disk}-unmounted")


def removed(home: Path, disk: Path) -> None:
    (home / "tokens.json").unlink()


def restored_by_hand(home: Path, disk: Path) -> None:
    """A list that no command has written: the replica that reads it remembers it."""
    (home / "tokens.made").unlink()
    asyncio.run(outcome(Access.of(Settings()), None))
    (home / "tokens.json").unlink()


def home_unmounted(home: Path, disk: Path) -> None:
    home.rename(disk)


@pytest.mark.parametrize("lose", [removed, moved_to_a_disk, restored_by_hand, home_unmounted])
def test_a_list_that_is_lost_at_start_lets_nobody_in_until_it_is_back(home: Path, tmp_path: Path, lose: Any) -> None:
    token = TokenFile.of(Settings()).add("station", ALL)
    disk = tmp_path / "disk"
    lose(home, disk)

    async def refused(sent: str | None) -> bool:
        return await outcome(Access.of(Settings()), sent, TokenScope.admin) in ("Unauthorized", "StorageUnreachable")

    assert asyncio.run(refused(None))
    assert asyncio.run(refused(token))


async def test_a_home_that_cannot_be_written_to_is_read_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = TokenFile.of(Settings()).add("station", ALL)
    (home / "tokens.made").unlink()
    (home / "tokens.made").symlink_to("/proc/nothing/can/be/made/here")
    assert await outcome(Access.of(Settings()), token) == "in"


async def test_a_flood_of_other_work_does_not_delay_a_revocation(file: TokenFile, clock: Clock) -> None:
    """All threads that requests share are busy, and work waits behind them."""
    token = file.add("station", ALL)
    access = Access(file=file)
    assert await outcome(access, token) == "in"
    gate = threading.Event()
    busy = [asyncio.create_task(asyncio.to_thread(gate.wait, 30)) for _ in range(200)]
    await asyncio.sleep(0)
    file.revoke("station")
    clock.now += STALE_S
    try:
        assert await outcome(access, token) == "Unauthorized"
    finally:
        gate.set()
        await asyncio.gather(*busy)


async def test_a_revoked_token_is_refused_in_time(file: TokenFile, clock: Clock) -> None:
    token = file.add("station", ALL)
    access = Access(file=file)
    assert await outcome(access, token) == "in"
    file.revoke("station")
    clock.now += STALE_S
    assert await outcome(access, token) == "Unauthorized"


async def test_a_spoilt_file_without_a_secret_does_not_open_the_api_even_when_it_goes(
    file: TokenFile, clock: Clock
) -> None:
    of_another_kind(Path(file.url))
    access = Access(file=file)
    assert await outcome(access, None) == "Unauthorized"
    gone(Path(file.url))
    clock.now += STALE_S
    assert await outcome(access, None) == "Unauthorized"
    assert await outcome(access, "made-up") == "Unauthorized"
