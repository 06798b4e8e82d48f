"""A store that is read again and again sees every change, and on S3 requests only what has changed."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from model_store.deployment import read_pool
from model_store.errors import StorageUnreachable
from model_store.listed_store import ListedStore
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.rollout.state import read_state
from tests.support.s3_server import new_bucket


@pytest.fixture(params=["disk", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of two models with a version each, and their aliases."""
    place = str(tmp_path) if request.param == "disk" else new_bucket(request.getfixturevalue("s3_endpoint"), "models")
    folder = ModelStore(place).folder
    for name in ("deer", "moth"):
        folder.write(f"{name}/1/READY", b'{"files": {}}')
        folder.write(f"{name}/1/config.json", b"{}")
        folder.write(f"{name}/aliases.json", b'{"production": "1"}')
    return place


def reading(store: ModelStore) -> dict[str, tuple[Any, ...]]:
    """Return pool, state and only version of each model, as a poll reads them."""
    return {n: (read_pool(store, n), read_state(store, n), store.only_version(n)) for n in store.names()}


def change_alias(url: str) -> None:
    ModelStore(url).folder.write("deer/aliases.json", b'{"production": "2"}')


def add_version(url: str) -> None:
    ModelStore(url).folder.write("deer/2/READY", b'{"files": {}}')


def remove_version(url: str) -> None:
    ModelStore(url).folder.remove("deer/1/READY")


def remove_model(url: str) -> None:
    ModelStore(url).folder.remove("moth")


def add_pool(url: str) -> None:
    ModelStore(url).folder.write("deer/deployment.json", b'{"*": {"pool": "gpu"}}')


@pytest.mark.parametrize("change", [change_alias, add_version, remove_version, remove_model, add_pool])
def test_each_change_is_seen_after_the_next_listing(url: str, change: Callable[[str], None]) -> None:
    store = ListedStore(url)
    store.list_again()
    before = reading(store)
    assert before == reading(ModelStore(url))
    change(url)
    store.list_again()
    assert reading(store) == reading(ModelStore(url)) != before


def test_names_and_existence_are_those_of_the_store(url: str) -> None:
    store = ListedStore(url)
    store.list_again()
    for path in ("", "deer", "deer/1", "deer/1/READY", "dee", "deer/2", "deer/1/READY/x"):
        assert store.folder.exists(path) == ModelStore(url).folder.exists(path), path
        assert store.folder.names(path) == ModelStore(url).folder.names(path) or path == "deer/1/READY", path
    assert store.only_version("deer") == VersionId("deer", "1")
    with pytest.raises(FileNotFoundError):
        store.folder.read("deer/none")


def test_a_reading_without_changes_is_one_request(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = new_bucket(s3_endpoint, "models")
    for number in range(20):
        ModelStore(place).folder.write(f"m{number}/1/READY", b"{}")
        ModelStore(place).folder.write(f"m{number}/aliases.json", b'{"production": "1"}')
    store = ListedStore(place)
    store.list_again()
    reading(store)
    requests: Counter[str] = Counter()
    original = S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **options: Any) -> Any:
        requests[method] += 1
        return await original(self, method, *args, **options)

    monkeypatch.setattr(S3FileSystem, "_call_s3", counted)
    store.list_again()
    reading(store)
    assert requests.total() == 1
    ModelStore(place).folder.write("m3/aliases.json", b"{}")
    requests.clear()
    store.list_again()
    assert reading(store)["m3"][1].aliases == {}
    assert requests.total() == 3  # the list, and s3fs asks for the size before it reads


def test_a_store_that_does_not_answer_keeps_its_listing(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = new_bucket(s3_endpoint, "models")
    ModelStore(place).folder.write("deer/1/READY", b"{}")
    store = ListedStore(place)
    store.list_again()

    async def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError("denied")

    monkeypatch.setattr(S3FileSystem, "_call_s3", refused)
    with pytest.raises(StorageUnreachable):
        store.list_again()
    assert store.names() == ["deer"]
