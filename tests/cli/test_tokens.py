"""resight tokens …: a token is shown once, listed without itself, and taken back."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from serve.auth.guard import Access
from serve.auth.scopes import TokenScope
from serve.auth.tokens import TokenFile
from serve.settings import Settings
from tests.cli.conftest import Resight


def add(resight: Resight, name: str, *scopes: str) -> str:
    """The token."""
    options = [word for scope in scopes for word in ("--scope", scope)]
    facts = json.loads(resight("tokens", "add", name, *options, "--format", "json").ok())
    assert facts == {"name": name, "scopes": ", ".join(scopes), "token": facts["token"]}
    return str(facts["token"])


def test_no_tokens_are_an_empty_list_in_every_format(resight: Resight, home: Path) -> None:
    assert resight("tokens", "list").ok().split() == ["name", "scopes", "daily_mib", "created_at"]
    assert json.loads(resight("tokens", "list", "--format", "json").ok()) == []
    assert resight("tokens", "list", "--format", "csv").ok().split() == ["name,scopes,daily_mib,created_at"]
    assert not home.exists()


async def test_what_add_shows_lets_in_for_its_scopes_until_it_is_revoked(resight: Resight, home: Path) -> None:
    token = add(resight, "station-7", "detect", "upload")
    assert stat.S_IMODE((home / "tokens.json").stat().st_mode) == 0o600
    access = Access.of(Settings())
    await access.check(Headers({"authorization": f"Bearer {token}"}), TokenScope.upload)
    resight("tokens", "revoke", "station-7").ok()
    assert TokenFile(str(home / "tokens.json")).read() == ()


def test_a_token_is_shown_once_and_never_again(resight: Resight, home: Path) -> None:
    token = add(resight, "station-7", "admin")
    for words in (("list",), ("list", "--format", "json"), ("revoke", "station-7")):
        done = resight("tokens", *words)
        assert "station-7" in done.ok()
        assert token not in done.out + done.err
    assert token not in (home / "tokens.json").read_text()


def test_add_says_what_follows_and_the_first_one_that_the_api_closes(resight: Resight) -> None:
    first = resight("tokens", "add", "a", "--scope", "detect")
    second = resight("tokens", "add", "b", "--scope", "detect")
    for done in (first, second):
        assert "not shown again" in done.err
        assert "Authorization: Bearer" in done.err
    assert "every request except health checks needs one" in first.err
    assert "every request" not in second.err


def test_revoking_the_last_one_says_how_to_open_again(resight: Resight) -> None:
    for name in ("a", "b"):
        resight("tokens", "add", name, "--scope", "detect").ok()
    assert "nobody" not in resight("tokens", "revoke", "a").err
    last = resight("tokens", "revoke", "b").err
    assert "no token is left" in last
    assert "docs/operate/access.md" in last


def test_list_names_scopes_and_says_that_there_is_a_secret_too(
    resight: Resight, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(resight, "b", "admin")
    add(resight, "a", "detect", "upload")
    rows = json.loads(resight("tokens", "list", "--format", "json").ok())
    assert [(row["name"], row["scopes"]) for row in rows] == [("b", "admin"), ("a", "detect, upload")]
    monkeypatch.setenv("RESIGHT_TOKEN", "the-secret")
    done = resight("tokens", "list")
    assert "RESIGHT_TOKEN" in done.err
    assert "the-secret" not in done.out + done.err


def test_the_file_is_where_the_setting_says(
    resight: Resight, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_TOKENS", str(tmp_path / "all" / "tokens.json"))
    add(resight, "a", "detect")
    assert (tmp_path / "all" / "tokens.json").exists()
    assert [one.name for one in home.iterdir()] == ["tokens.made"]


async def test_a_quota_is_set_listed_changed_and_removed(resight: Resight, home: Path) -> None:
    words = ("tokens", "add", "a", "--scope", "upload", "--daily-mib", "500", "--format", "json")
    token = json.loads(resight(*words).ok())["token"]
    add(resight, "b", "admin")
    for set_to in (500, 20, None):
        if set_to != 500:
            done = resight(
                "tokens", "quota", "a", *(["--daily-mib", str(set_to)] if set_to else []), "--format", "json"
            )
            assert json.loads(done.ok())["daily_mib"] == set_to
            assert ("a may store 20 MiB a day" if set_to else "a has no quota") in done.err
        rows = json.loads(resight("tokens", "list", "--format", "json").ok())
        assert [(row["name"], row["daily_mib"]) for row in rows] == [("a", set_to), ("b", None)]
        sender = await Access.of(Settings()).check(Headers({"authorization": f"Bearer {token}"}), TokenScope.upload)
        assert sender.daily_mib == set_to
    assert "daily_mib" not in (home / "tokens.json").read_text(), "an older Resight reads the file"
    assert "existing tokens: a, b" in resight("tokens", "quota", "c", "--daily-mib", "1").refused(2)
    assert "--daily-mib" in resight("tokens", "quota", "a", "--daily-mib", "0").err


def test_what_cannot_be_done_is_refused_and_says_why(resight: Resight) -> None:
    add(resight, "a", "admin")
    for words, message in (
        (["add", "A b", "--scope", "detect"], "invalid token name 'A b'"),
        (["add", "a", "--scope", "detect"], "token a exists; revoke it first"),
        (["revoke", "b"], "existing tokens: a"),
    ):
        assert message in resight("tokens", *words).refused(2)


@pytest.mark.parametrize("words", [["a"], ["a", "--scope", "root"]])
def test_a_token_without_a_scope_that_exists_is_a_wrong_command_line(
    resight: Resight, words: list[str], home: Path
) -> None:
    done = resight("tokens", "add", *words)
    assert done.code == 2
    assert "--help" in done.err
    assert not home.exists()


def test_a_damaged_file_is_left_alone_and_is_exit_code_7(resight: Resight, home: Path) -> None:
    home.mkdir()
    (home / "tokens.json").write_text("{")
    for words in (["add", "b", "--scope", "detect"], ["revoke", "a"], ["list"]):
        assert "is damaged" in resight("tokens", *words).refused(7)
    assert (home / "tokens.json").read_text() == "{"


def test_a_list_that_is_lost_is_told_by_list_and_status_and_made_again_by_add(resight: Resight, home: Path) -> None:
    add(resight, "a", "detect")
    (home / "tokens.json").unlink()
    assert "is missing, but tokens were made" in resight("tokens", "list").refused(7)
    status = json.loads(resight("status", "--format", "json").out)
    assert "is missing, but tokens were made" in status["tokens"]
    done = resight("tokens", "add", "b", "--scope", "detect")
    assert done.ok()
    assert "the first token" not in done.err  # the API is closed already
    assert json.loads(resight("status", "--format", "json").out)["tokens"].startswith("1 in ")
