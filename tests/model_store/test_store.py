"""Versions are written once and READY last, aliases point at them, and bytes are never trusted."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from model_store.errors import Conflict, DigestMismatch, ModelExists, ModelNotFound, ModelRefused
from model_store.inference_key import sha256_hex
from model_store.names import VersionId, get_first_model, parse_ref, version_id
from model_store.ready import CLAIM, READY
from model_store.storage import Folder
from model_store.store import CONFIG, ModelStore
from tests.fixtures_local import motion_store
from tests.model_store.classifiers import colour_store
from tests.shared_data import MODELS
from tests.support.disks import deny

CONFIG_BYTES = json.dumps({"runtime": {"kind": "onnx"}, "decoder": "yolov8", "labels": ["deer", "fox"]}).encode()
FILES: Mapping[str, bytes] = {CONFIG: CONFIG_BYTES, "model.onnx": b"weights", "probe/cat.jpg": b"a picture"}
DEER_1 = version_id("deer", "1")
DEER_2 = version_id("deer", "2")


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ModelStore:
    local = request.param == "local"
    return ModelStore(str(tmp_path / "models") if local else f"memory://{uuid.uuid4()}")


def half_copied(store: ModelStore, version: VersionId) -> None:
    """Write all files except READY, which is written last."""
    for name, data in FILES.items():
        store.folder.write(f"{version.name}/{version.version}/{name}", data)


def message(kind: type[Exception], call: object, *arguments: object) -> str:
    with pytest.raises(kind) as raised:
        call(*arguments)  # type: ignore[operator]
    return str(raised.value)


def test_an_empty_store_has_nothing_and_says_how_to_add(store: ModelStore) -> None:
    assert store.names() == []
    assert store.versions("deer") == []
    assert store.aliases("deer") == {}
    assert get_first_model() in message(ModelNotFound, store.resolve, parse_ref("deer"))
    assert "deer@1" in message(ModelNotFound, store.describe, DEER_1)


def test_a_published_version_is_described_from_its_files(store: ModelStore) -> None:
    published = store.publish(DEER_1, FILES)
    assert published == store.describe(DEER_1) == store.verify(DEER_1)
    assert published.id == published.info.id == DEER_1
    assert published.info.labels == ("deer", "fox")
    assert published.info.weights_sha256 == sha256_hex(b"weights")
    assert published.digests == {name: sha256_hex(data) for name, data in FILES.items()}
    assert store.read_file(published, "probe/cat.jpg") == b"a picture"
    assert (store.names(), store.versions("deer")) == (["deer"], [DEER_1])


def test_the_claim_is_written_first_and_ready_last(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    create = Folder.create

    def note(folder: Folder, relative: str, data: bytes) -> None:
        written.append(relative)
        create(folder, relative, data)

    store.publish(DEER_2, FILES)  # the first write to a remote URL checks conditional writes
    monkeypatch.setattr(Folder, "create", note)
    store.publish(DEER_1, FILES)
    assert written[0] == f"deer/1/{CLAIM}"
    assert sorted(written[1:-1]) == sorted(f"deer/1/{name}" for name in FILES)
    assert written[-1] == f"deer/1/{READY}"


def test_a_version_without_ready_does_not_exist(store: ModelStore) -> None:
    half_copied(store, DEER_1)
    assert store.versions("deer") == []
    said = message(ModelNotFound, store.resolve, parse_ref("deer@1"))
    assert "available: none" in said
    assert "not READY" in message(ModelNotFound, store.describe, DEER_1)
    store.publish(DEER_2, FILES)
    assert store.versions("deer") == [DEER_2]
    assert "deer@2" in message(ModelNotFound, store.resolve, parse_ref("deer@1"))


def test_versions_never_change(store: ModelStore) -> None:
    store.publish(DEER_1, FILES)
    with pytest.raises(ModelExists, match="deer@1"):
        store.publish(DEER_1, {**FILES, "model.onnx": b"other weights"})
    assert store.read_file(store.describe(DEER_1), "model.onnx") == b"weights"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_file_is_named_with_both_digests(store: ModelStore, name: str) -> None:
    store.publish(DEER_1, FILES)
    store.folder.write(f"deer/1/{name}", b"tampered")
    said = message(DigestMismatch, store.verify, DEER_1)
    assert f"deer@1: {name} has sha256" in said
    assert sha256_hex(b"tampered")[:12] in said
    assert sha256_hex(FILES[name])[:12] in said


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_is_gone_is_named(store: ModelStore, name: str) -> None:
    store.publish(DEER_1, FILES)
    store.folder.remove(f"deer/1/{name}")
    assert f"{name} is missing" in message(DigestMismatch, store.verify, DEER_1)


@pytest.mark.parametrize("ready", [b"", b"[]", b'{"files": null}', b"\xff\xfe"])
def test_a_damaged_ready_is_refused(store: ModelStore, ready: bytes) -> None:
    store.publish(DEER_1, FILES)
    store.folder.write(f"deer/1/{READY}", ready)
    assert "READY is damaged" in message(ModelRefused, store.describe, DEER_1)


@pytest.mark.parametrize("missing", [CONFIG, "model.onnx"])
def test_a_ready_without_config_or_weights_is_refused(store: ModelStore, missing: str) -> None:
    store.publish(DEER_1, FILES)
    files = {name: sha256_hex(data) for name, data in FILES.items() if name != missing}
    store.folder.write(f"deer/1/{READY}", json.dumps({"files": files}).encode())
    assert missing in message(ModelRefused, store.describe, DEER_1)


def test_a_reference_is_a_version_or_an_alias_or_production(store: ModelStore) -> None:
    for version in (DEER_1, DEER_2):
        store.publish(version, FILES)
    store.set_alias("deer", "production", "1")
    store.set_alias("deer", "canary", "2")
    assert store.resolve(parse_ref("deer")) == DEER_1
    assert store.resolve(parse_ref("deer:canary")) == DEER_2
    assert store.resolve(parse_ref("deer@2")) == DEER_2
    store.set_alias("deer", "production", "2")
    assert store.resolve(parse_ref("deer")) == DEER_2
    assert store.aliases("deer") == {"production": "2", "canary": "2"}
    assert store.versions("deer") == [DEER_1, DEER_2]


def test_what_does_not_exist_is_answered_with_what_does(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.publish(DEER_1, FILES)
    half_copied(store, version_id("wolf", "1"))
    said = message(ModelNotFound, store.resolve, parse_ref("moose"))
    assert "available: deer" in said
    assert "wolf" not in said
    store.publish(version_id("bees", "1"), FILES)
    deny(monkeypatch, "bees")
    assert "available: deer" in message(ModelNotFound, store.resolve, parse_ref("moose"))
    assert "available: deer@1" in message(ModelNotFound, store.resolve, parse_ref("deer@7"))
    store.set_alias("deer", "canary", "1")
    said = message(ModelNotFound, store.resolve, parse_ref("deer:nightly"))
    assert "aliases: canary" in said
    assert "resight models promote deer@1 --alias nightly" in said


def test_the_only_version_is_what_a_name_means_until_there_are_two(store: ModelStore) -> None:
    store.publish(DEER_1, FILES)
    half_copied(store, DEER_2)
    store.set_alias("deer", "canary", "1")
    assert store.resolve(parse_ref("deer")) == DEER_1
    store.publish(DEER_2, FILES)
    said = message(ModelNotFound, store.resolve, parse_ref("deer"))
    assert "no alias 'production'" in said
    assert "(deer@1, deer@2), or set the alias: resight models promote deer@1" in said
    store.set_alias("deer", "production", "2")
    assert store.resolve(parse_ref("deer")) == DEER_2


def test_an_alias_cannot_point_at_what_is_not_ready(store: ModelStore) -> None:
    store.publish(DEER_1, FILES)
    half_copied(store, DEER_2)
    with pytest.raises(ModelNotFound, match="deer@2"):
        store.set_alias("deer", "production", "2")
    assert store.aliases("deer") == {}


def test_an_alias_is_moved_only_from_where_it_is_expected(store: ModelStore) -> None:
    for version in (DEER_1, DEER_2):
        store.publish(version, FILES)
    store.set_alias("deer", "production", "1", among={None})
    store.set_alias("deer", "canary", "1")
    with pytest.raises(Conflict, match="production is 1"):
        store.set_alias("deer", "production", "2", among={None, "2"})
    assert store.aliases("deer") == {"production": "1", "canary": "1"}
    store.set_alias("deer", "production", "2", among={"1"})
    assert store.aliases("deer") == {"production": "2", "canary": "1"}


def test_a_version_that_comes_to_be_needed_while_it_is_removed_is_whole_again(store: ModelStore) -> None:
    store.publish(DEER_1, FILES)
    seen: list[bool] = []

    def require() -> None:
        seen.append(store.folder.exists(f"deer/1/{READY}"))
        if len(seen) == 2:
            raise Conflict("promoted a moment ago")

    with pytest.raises(Conflict, match="a moment ago"):
        store.remove(DEER_1, require)
    assert seen == [True, False]
    store.verify(DEER_1)


@pytest.mark.parametrize("aliases", [b"", b"[]", b"\xff\xfe\x00"])
def test_broken_aliases_are_refused_by_file(store: ModelStore, aliases: bytes) -> None:
    store.publish(DEER_1, FILES)
    store.folder.write("deer/aliases.json", aliases)
    assert "deer/aliases.json" in message(ModelRefused, store.resolve, parse_ref("deer"))


def test_the_shipped_models_are_whole() -> None:
    store = ModelStore(str(MODELS))
    assert store.names() == ["motion", "ssdlite-coco"]
    for name in store.names():
        version = store.resolve(parse_ref(name))
        assert version == VersionId(name, "1")
        assert store.verify(version).config.licence


def test_versions_of_a_model_are_of_one_kind(tmp_path: Path) -> None:
    """Aliases move between versions, and callers expect responses of one kind."""
    store, other = colour_store(tmp_path / "a"), motion_store(tmp_path / "b", "1")
    for target, source, said in (
        (other, store.describe(version_id("colours", "1")), "blobs@2 is a classifier, but blobs@1"),
        (store, other.describe(version_id("blobs", "1")), "colours@2 is a detector, but colours@1"),
    ):
        (name,) = target.names()
        home = store if target is other else other
        files = {file: home.read_file(source, file) for file in source.digests}
        with pytest.raises(ModelRefused, match=said):
            target.publish(version_id(name, "2"), files)
        assert target.versions(name) == [version_id(name, "1")]
