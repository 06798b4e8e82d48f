"""Concurrent publications: one version has only one set of files, and announced files never change."""

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_store.errors import ModelExists, StorageUnsafe
from model_store.inference_key import sha256_hex
from model_store.names import version_id
from model_store.ready import CLAIM, READY
from model_store.storage import Folder
from model_store.store import CONFIG, ModelStore, ModelVersion
from tests.s3_proxy import s3_proxy
from tests.support.s3_server import new_bucket

DEER_1, DEER_2 = version_id("deer", "1"), version_id("deer", "2")
CONFIG_BYTES = json.dumps({"runtime": {"kind": "onnx"}, "decoder": "yolov8", "labels": ["deer"]}).encode()
WRITERS = 3


def files(weights: str) -> dict[str, bytes]:
    return {CONFIG: CONFIG_BYTES, "model.onnx": weights.encode(), "probe/cat.jpg": b"a picture"}


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ModelStore:
    """Return an empty store on a disk or on an S3 server."""
    if request.param == "local":
        return ModelStore(str(tmp_path / "models"))
    return ModelStore(new_bucket(request.getfixturevalue("s3_endpoint"), "models"))


class Stopped(Exception):
    pass


def stop_before(patch: pytest.MonkeyPatch, name: str) -> None:
    """End a publication before it creates this file, like a killed process."""
    create = Folder.create

    def until(folder: Folder, relative: str, data: bytes) -> None:
        if relative.endswith(f"/{name}"):
            raise Stopped
        create(folder, relative, data)

    patch.setattr(Folder, "create", until)


def test_a_publication_that_met_another_replaces_nothing(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow publication has checked READY before the other announced the version."""
    looked, announced = threading.Event(), threading.Event()
    exists = Folder.exists

    def slow(folder: Folder, relative: str = "") -> bool:
        there = exists(folder, relative)
        if threading.current_thread() is not threading.main_thread() and READY in relative:
            looked.set()
            assert announced.wait(60)
        return there

    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(Folder, "exists", slow)
        late = pool.submit(store.publish, DEER_1, files("late"))
        assert looked.wait(60)
        first = store.publish(DEER_1, files("first"))
        announced.set()
        with pytest.raises(ModelExists, match="deer@1 is claimed by another publication"):
            late.result(60)
    assert store.verify(DEER_1) == first
    assert first.info.weights_sha256 == sha256_hex(b"first")


def publish_together(store: ModelStore, weights: list[str]) -> list[ModelVersion | ModelExists]:
    together = threading.Barrier(len(weights))

    def publish(one: str) -> ModelVersion | ModelExists:
        together.wait(60)
        try:
            return store.publish(DEER_1, files(one))
        except ModelExists as error:
            return error

    with ThreadPoolExecutor(len(weights)) as pool:
        return list(pool.map(publish, weights))


def test_of_many_that_publish_one_version_one_succeeds(store: ModelStore) -> None:
    outcomes = publish_together(store, [f"weights {i}" for i in range(WRITERS)])
    (winner,) = [one for one in outcomes if isinstance(one, ModelVersion)]
    place = outcomes.index(winner)
    assert store.verify(DEER_1) == winner
    assert winner.info.weights_sha256 == sha256_hex(f"weights {place}".encode())


def test_numbers_that_are_counted_are_taken_once(store: ModelStore) -> None:
    together = threading.Barrier(WRITERS)

    def publish(i: int) -> ModelVersion:
        together.wait(60)
        return store.publish_next("deer", files(f"weights {i}"))

    with ThreadPoolExecutor(WRITERS) as pool:
        added = list(pool.map(publish, range(WRITERS)))
    assert len({one.id for one in added}) == WRITERS
    for i, one in enumerate(added):
        assert store.verify(one.id).info.weights_sha256 == sha256_hex(f"weights {i}".encode())


@pytest.mark.parametrize("stopped_at", [CONFIG, "model.onnx", READY])
def test_a_publication_cut_off_is_named_and_can_only_be_finished(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, stopped_at: str
) -> None:
    with monkeypatch.context() as patch:
        stop_before(patch, stopped_at)
        with pytest.raises(Stopped):
            store.publish(DEER_1, files("first"))
    left = [] if stopped_at == CONFIG else [DEER_1]  # the first has a CLAIM, like a removed version
    assert (store.versions("deer"), store.unfinished("deer")) == ([], left)
    with pytest.raises(ModelExists, match="is claimed .* delete .*deer/1 if it was cut"):
        store.publish(DEER_1, files("other"))
    assert store.publish_next("deer", files("other")).id == DEER_2
    store.publish(DEER_1, files("first"))
    assert (store.versions("deer"), store.unfinished("deer")) == ([DEER_1, DEER_2], [])
    assert store.verify(DEER_1).info.weights_sha256 == sha256_hex(b"first")


def test_a_folder_half_copied_from_elsewhere_is_not_mixed(store: ModelStore) -> None:
    store.folder.write("deer/1/model.onnx", b"theirs")
    with pytest.raises(ModelExists, match=r"different model\.onnx"):
        store.publish(DEER_1, files("ours"))
    assert store.versions("deer") == []
    assert store.publish_next("deer", files("ours")).id == DEER_2


def test_a_store_that_ignores_the_condition_is_refused(s3_endpoint: str) -> None:
    with s3_proxy(s3_endpoint, careless=True) as url:
        store = ModelStore(new_bucket(url, "models"))
        with pytest.raises(StorageUnsafe, match="ignores conditional writes"):
            store.publish(DEER_1, files("first"))
        assert store.folder.names() == []


@pytest.mark.parametrize("stopped_at", [CONFIG, "model.onnx", READY])
def test_who_goes_on_after_the_folder_was_removed_replaces_nothing(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, stopped_at: str
) -> None:
    """The version of a slow publication is removed and published again; then the slow one continues."""
    at, removed = threading.Event(), threading.Event()
    create = Folder.create

    def slow(folder: Folder, relative: str, data: bytes) -> None:
        if threading.current_thread() is not threading.main_thread() and relative.endswith(f"/{stopped_at}"):
            at.set()
            assert removed.wait(60)
        create(folder, relative, data)

    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(Folder, "create", slow)
        late = pool.submit(store.publish, DEER_1, files("late"))
        assert at.wait(60)
        store.folder.remove("deer/1")
        first = store.publish(DEER_1, files("first"))
        before = everything(store, "1")
        removed.set()
        with pytest.raises(ModelExists):
            late.result(60)
    assert everything(store, "1") == before
    assert store.verify(DEER_1) == first


def everything(store: ModelStore, version: str) -> Mapping[str, bytes]:
    place = f"deer/{version}"
    names = [CLAIM, READY, CONFIG, "model.onnx", "probe/cat.jpg"]
    return {name: store.folder.read(f"{place}/{name}") for name in names}
