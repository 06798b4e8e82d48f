"""READY lists the files of a version, and no name refers to a file outside its folder."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from model_store import store as store_module
from model_store.errors import ModelNotFound, ModelRefused, StorageUnreachable
from model_store.inference_key import sha256_hex
from model_store.names import VersionId, parse_ref, version_id
from model_store.ready import MAX_FILES, MAX_NAME_BYTES, MAX_READY_BYTES, READY, format_ready, is_file_name, parse_ready
from model_store.storage import Folder
from model_store.store import CONFIG, ModelStore

DIGEST = sha256_hex(b"weights")
DEER_1 = version_id("deer", "1")
FILES: Mapping[str, bytes] = {
    CONFIG: json.dumps({"runtime": {"kind": "onnx"}, "decoder": "yolov8", "labels": ["deer"]}).encode(),
    "model.onnx": b"weights",
    "probe/cat.jpg": b"a picture",
}
INSIDE = [
    "model.onnx",
    "probe/cat.jpg",
    "LICENSE",
    "a-b_c.D/e/f",
    ".hidden",
    "..a",
    "probe/Höhle (2), links.jpg",
    "x" * MAX_NAME_BYTES,
]
OUTSIDE = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../model.onnx",
    "../../../../.bashrc",
    "probe/../../2/model.onnx",
    "probe/..",
    "probe//cat.jpg",
    "probe/",
    "./model.onnx",
    "... /x",
    "..\\..\\model.onnx",
    "C:\\model.onnx",
    "C:model.onnx",
    "file:///etc/passwd",
    "a\0b",
    "a\nb",
    "a\x1b[2J",
    "a\u202eb",
    "a\ud800",
    "model.onnx?versionId=1",
    "probe/*.jpg",
    "x" * (MAX_NAME_BYTES + 1),
    "é" * MAX_NAME_BYTES,
]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(str(tmp_path / "models"))


def ready_of(files: Mapping[str, str]) -> bytes:
    return json.dumps({"files": files}).encode()


@pytest.mark.parametrize("name", INSIDE)
def test_a_name_below_the_folder_is_read_as_written(name: str) -> None:
    assert is_file_name(name)
    assert parse_ready(format_ready({name: DIGEST}, "deer@1"), "deer@1") == {name: DIGEST}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    assert not is_file_name(name)
    with pytest.raises(ModelRefused, match="deer@1: READY lists .* not a file name inside"):
        parse_ready(ready_of({CONFIG: DIGEST, name: DIGEST}), "deer@1")
    with pytest.raises(ModelRefused, match="deer@1: READY lists"):
        format_ready({name: DIGEST}, "deer@1")


@pytest.mark.parametrize(
    ("first", "second"),
    [("model.onnx", "MODEL.onnx"), ("probe/\u00e9.jpg", "probe/e\u0301.jpg"), ("a", "READY"), ("a", "Claim")],
)
def test_two_names_of_one_file_on_some_disk_are_refused(first: str, second: str) -> None:
    with pytest.raises(ModelRefused, match="the duplicate name"):
        parse_ready(ready_of({first: DIGEST, second: DIGEST}), "deer@1")


@pytest.mark.parametrize("digest", ["", DIGEST.upper(), f"{DIGEST}\n"])
def test_a_digest_has_64_hex_digits(digest: str) -> None:
    with pytest.raises(ModelRefused, match="invalid sha256"):
        parse_ready(ready_of({CONFIG: digest}), "deer@1")


def test_the_number_of_files_is_bounded() -> None:
    names = {f"f{i}": DIGEST for i in range(MAX_FILES + 1)}
    with pytest.raises(ModelRefused, match=f"lists {MAX_FILES + 1} files"):
        parse_ready(ready_of(names), "deer@1")
    names.popitem()
    longest = {name.ljust(MAX_NAME_BYTES, "x"): DIGEST for name in names}
    assert len(format_ready(longest, "deer@1")) <= MAX_READY_BYTES


@pytest.mark.parametrize("nested", [b"[" * 100_000, b'{"files":' * 100_000])
def test_deep_json_is_damaged_and_not_a_crash(store: ModelStore, nested: bytes) -> None:
    """Test READY, the config and the aliases: another user's damaged version must not end a listing."""
    with pytest.raises(ModelRefused, match="READY is damaged"):
        parse_ready(nested, "deer@1")
    store.publish(DEER_1, FILES)
    store.folder.write("deer/aliases.json", nested)
    with pytest.raises(ModelRefused, match=r"aliases\.json is not JSON"):
        store.aliases("deer")
    store.folder.write(f"deer/1/{CONFIG}", nested)
    files = {CONFIG: sha256_hex(nested), "model.onnx": DIGEST}
    store.folder.write(f"deer/1/{READY}", ready_of(files))
    with pytest.raises(ModelRefused, match="is not JSON"):
        store.describe(DEER_1)


def test_a_ready_that_is_too_large_is_not_read(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.publish(DEER_1, FILES)
    place = Path(store.url, "deer", "1", READY)
    with place.open("wb") as file:
        file.truncate(MAX_READY_BYTES + 1)
    monkeypatch.setattr(Folder, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ModelRefused, match=f"has {MAX_READY_BYTES + 1} bytes"):
        store.describe(DEER_1)


def test_all_files_of_a_version_are_bounded_together(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    described = store.publish(DEER_1, FILES)
    total = sum(map(len, FILES.values()))
    monkeypatch.setattr(store_module, "MAX_VERSION_BYTES", total)
    assert store.read_files(described) == FILES
    monkeypatch.setattr(store_module, "MAX_VERSION_BYTES", total - 1)
    for read in (lambda: store.read_files(described), lambda: store.verify(DEER_1)):
        with pytest.raises(ModelRefused, match="bytes; the limit is"):
            read()


@pytest.mark.parametrize("name", [READY, CONFIG, "model.onnx", "probe/cat.jpg"])
def test_a_link_that_leads_out_of_the_version_is_refused(store: ModelStore, tmp_path: Path, name: str) -> None:
    """Links are rejected even if their target has the right bytes: these may change."""
    store.publish(DEER_1, FILES)
    file = Path(store.url, "deer", "1", name)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelRefused, match="outside"):
        store.verify(DEER_1)


@pytest.mark.parametrize("name", [READY, "model.onnx"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(store: ModelStore, name: str) -> None:
    store.publish(DEER_1, FILES)
    file = Path(store.url, "deer", "1", name)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ModelRefused, match="not a regular file"):
        store.verify(DEER_1)


@pytest.mark.parametrize("target", ["../../../etc", "..", "a\0b"])
def test_an_alias_leads_to_no_place_outside_its_model(store: ModelStore, target: str) -> None:
    store.publish(DEER_1, FILES)
    store.folder.write("deer/aliases.json", json.dumps({"production": target}).encode())
    with pytest.raises(ModelNotFound, match="unknown version"):
        store.resolve(parse_ref("deer"))
    with pytest.raises(StorageUnreachable, match="outside"):
        store.describe(VersionId("deer", target))


@pytest.mark.parametrize("relative", ["..", "a/../../x", "a\0"])
def test_no_path_of_a_folder_leads_out_of_it(tmp_path: Path, relative: str) -> None:
    folder = Folder(str(tmp_path / "inside"))
    for act in (folder.read, folder.exists, folder.names, folder.remove):
        with pytest.raises(StorageUnreachable, match="outside"):
            act(relative)
    for write in (folder.write, folder.create):
        with pytest.raises(StorageUnreachable, match="outside"):
            write(relative, b"1")
    assert folder.path("/etc/passwd") == f"{tmp_path}/inside//etc/passwd"
