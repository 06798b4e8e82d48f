"""The file of tokens: what is in it, who may read it, and what damages it."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import BadRequest, StorageError
from serve.auth.scopes import TokenScope
from serve.auth.tokens import StoredToken, TokenFile, digest

ALL = frozenset(TokenScope)


def test_no_file_is_no_table_and_an_empty_table_is_one(file: TokenFile) -> None:
    assert file.read() is None
    file.add("station", ALL)
    file.revoke("station")
    assert file.read() == ()


def test_a_token_is_random_long_and_kept_as_its_hash_alone(file: TokenFile) -> None:
    tokens = [file.add(f"station-{i}", ALL) for i in range(20)]
    assert len(set(tokens)) == 20
    assert {len(token) for token in tokens} == {43}  # 32 bytes, base64
    text = Path(file.url).read_text()
    assert not any(token in text for token in tokens)
    stored = file.read() or ()
    assert [token.sha256 for token in stored] == [digest(token.encode()) for token in tokens]


def test_no_moment_shows_the_file_to_others(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at every file that holds a hash after each step of writing."""
    folder, seen = Path(file.url).parent, set[int]()

    def watched(change: Any) -> Any:
        def run(*args: Any, **more: Any) -> Any:
            done = change(*args, **more)
            seen.update(
                stat.S_IMODE(one.stat().st_mode)
                for one in folder.iterdir()
                if one.stat().st_size and b"sha256" in one.read_bytes()
            )
            return done

        return run

    for name in ("replace", "link", "chmod", "rename", "fsync"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    file.add("one", ALL)
    file.add("two", ALL)
    assert seen == {0o600}


@pytest.mark.parametrize("name", ["Station", "../a", "x" * 65, "a\n"])
def test_a_name_that_is_none_is_refused(file: TokenFile, name: str) -> None:
    with pytest.raises(BadRequest, match="invalid token name"):
        file.add(name, ALL)
    assert file.read() is None


def test_names_are_unique_and_a_token_has_a_scope(file: TokenFile) -> None:
    file.add("station", ALL)
    with pytest.raises(BadRequest, match="revoke it first"):
        file.add("station", ALL)
    with pytest.raises(BadRequest, match="detect, upload, review, admin"):
        file.add("other", [])


def test_revoking_what_is_not_there_lists_what_is(file: TokenFile) -> None:
    with pytest.raises(BadRequest, match="existing tokens: none"):
        file.revoke("station")
    file.add("a", ALL)
    file.add("b", ALL)
    with pytest.raises(BadRequest, match="existing tokens: a, b"):
        file.revoke("station")


def test_many_changes_at_a_time_lose_nothing_and_bring_nothing_back(file: TokenFile) -> None:
    for i in range(8):
        file.add(f"old-{i}", ALL)
    works = [threading.Thread(target=file.add, args=(f"new-{i}", ALL)) for i in range(8)]
    works += [threading.Thread(target=file.revoke, args=(f"old-{i}",)) for i in range(8)]
    for work in works:
        work.start()
    for work in works:
        work.join()
    assert {t.name for t in file.read() or ()} == {f"new-{i}" for i in range(8)}


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "the file"), ('{"tokens": [], "more": 1}', "more"), ('{"tokens": [{"name": "a"}]}', "tokens.0")],
)
def test_a_damaged_file_is_refused_and_never_overwritten(file: TokenFile, text: str, words: str) -> None:
    Path(file.url).write_text(text)
    for change in (file.read, lambda: file.add("a", ALL), lambda: file.revoke("a")):
        with pytest.raises(StorageError, match="is damaged") as refused:
            change()
        assert words in str(refused.value)
    assert Path(file.url).read_text() == text


def test_a_list_that_is_lost_is_no_empty_one(tmp_path: Path) -> None:
    file = TokenFile(str(tmp_path / "keys" / "tokens.json"), tmp_path / "home" / "tokens.made")
    assert file.is_unused()
    with pytest.raises(BadRequest, match="existing tokens: none"):
        file.revoke("station")
    assert file.read() is None  # what changes nothing closes nothing
    file.add("station", ALL)
    Path(file.url).unlink()
    for look in (file.read, lambda: file.revoke("station")):
        with pytest.raises(StorageError, match="is missing, but tokens were made") as refused:
            look()
        assert file.url in str(refused.value)
    assert file.words() == str(refused.value)
    file.add("b", [TokenScope.admin])
    assert file.words() == f"1 in {file.url}"
    file.revoke("b")
    assert file.words() == f"none is left in {file.url}: only RESIGHT_TOKEN is accepted"
    assert not file.is_unused()
    file.add("other", ALL)
    assert [token.name for token in file.read() or ()] == ["other"]


def test_two_tokens_of_one_name_are_damage(file: TokenFile) -> None:
    file.add("a", ALL)
    table = json.loads(Path(file.url).read_text())
    Path(file.url).write_text(json.dumps({"tokens": table["tokens"] * 2}))
    with pytest.raises(StorageError, match="more than one token is named a"):
        file.read()


def test_the_file_may_be_at_any_url() -> None:
    file = TokenFile("memory://resight-test/access/tokens.json")
    assert file.read() is None
    token = file.add("station", [TokenScope.detect])
    (stored,) = file.read() or ()
    assert isinstance(stored, StoredToken)
    assert stored.sha256 == digest(token.encode())
    file.revoke("station")


@pytest.mark.parametrize("url", ["s3://bucket", "memory://x"])
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="RESIGHT_TOKENS must name a file"):
        TokenFile(url)
