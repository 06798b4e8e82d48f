"""Test reading one archive file: prepared pixels, or the error code."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import batch.pipeline.read_image
from archive.catalogue.quick_digest import quick_digest
from batch.pipeline.read_image import READ_ATTEMPTS, ReadImage, prepare_image
from model_store.config import Preprocess
from model_store.errors import StorageUnreachable
from model_store.images.decode import decode
from model_store.storage import Folder
from model_store.transform.preprocess import prepare
from tests.fixtures_local import photo, write_files

SPEC = Preprocess(side_px=64)
MAX_PIXELS = 1_000_000


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.pipeline.read_image._read.retry, "sleep", lambda _: None)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return a folder with an unrelated file."""
    return write_files(tmp_path, {"other.jpg": b"x"})


def read(root: Path, data: bytes, path: str = "a.jpg", max_pixels: int = MAX_PIXELS) -> ReadImage:
    row = {"media_sha256": hashlib.sha256(data).hexdigest(), "source_root": str(root), "path": path}
    return prepare_image(row, SPEC, max_pixels)


def test_a_good_image_is_prepared_as_the_detector_would(tmp_path: Path) -> None:
    cat = photo("cat")
    image = read(write_files(tmp_path, {"a.jpg": cat}), cat)
    assert image.error_code is image.error_detail is None
    assert image.prepared is not None
    assert image.facts is not None
    want = prepare(decode(cat).pixels, SPEC)
    np.testing.assert_array_equal(image.prepared.pixels, want.pixels)
    assert image.prepared.fits == want.fits
    assert (image.facts.width_px, image.facts.height_px) == (451, 300)
    assert image.decode_ms > 0


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "unsupported", "the file is empty"),
        (photo("cat")[:200], "decode", "damaged"),
        (photo("moose"), "too_large", "1024x683 is over the limit"),
    ],
)
def test_what_cannot_be_decoded_has_a_code_and_a_reason(tmp_path: Path, data: bytes, code: str, words: str) -> None:
    image = read(write_files(tmp_path, {"a.jpg": data}), data, max_pixels=500_000)
    assert (image.prepared, image.error_code) == (None, code)
    assert words in str(image.error_detail)
    assert image.media_sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_has_changed_is_told_whether_or_not_the_catalogue_has_quick_digests(
    tmp_path: Path, known: bool
) -> None:
    cat, moose = photo("cat"), photo("moose")
    root = write_files(tmp_path, {"a.jpg": moose})
    row = {"media_sha256": hashlib.sha256(cat).hexdigest(), "source_root": str(root), "path": "a.jpg"}
    row |= {"quick_digest": quick_digest(cat) if known else None}
    assert prepare_image(row, SPEC, MAX_PIXELS).error_code == "changed"
    (root / "a.jpg").write_bytes(cat)
    assert prepare_image(row, SPEC, MAX_PIXELS).error_code is None


def test_a_file_that_is_gone_cannot_be_accessed(archive: Path) -> None:
    image = read(archive, b"", "north/gone.jpg")
    assert (image.prepared, image.error_code) == (None, "access")
    assert "north/gone.jpg" in str(image.error_detail)
    assert str(archive) not in str(image.error_detail)


def test_an_archive_that_is_away_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(StorageUnreachable, match="is empty or unavailable; is it mounted"):
        read(tmp_path / "unmounted", b"")


@pytest.mark.parametrize("first", [None, photo("moose")])
def test_the_same_bytes_elsewhere_will_do(tmp_path: Path, first: bytes | None) -> None:
    cat = photo("cat")
    write_files(tmp_path, {"b.jpg": cat} | ({"a.jpg": first} if first else {}))
    row = {
        "media_sha256": hashlib.sha256(cat).hexdigest(),
        "source_root": str(tmp_path),
        "path": "a.jpg",
        "elsewhere": [{"source_root": str(tmp_path), "path": "b.jpg"}],
    }
    assert prepare_image(row, SPEC, MAX_PIXELS).prepared is not None
    (tmp_path / "b.jpg").write_bytes(b"changed too")
    assert prepare_image(row, SPEC, MAX_PIXELS).error_code == ("changed" if first else "access")


@pytest.mark.parametrize("failures", [READ_ATTEMPTS - 1, READ_ATTEMPTS])
def test_a_transient_error_is_tried_again_and_a_lasting_one_is_the_images(
    archive: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    cat, tries = photo("cat"), []

    def flaky(folder: Folder, path: str) -> bytes:
        tries.append(path)
        if len(tries) <= failures:
            raise StorageUnreachable(f"{folder.root}/{path}: timed out")
        return cat

    monkeypatch.setattr(Folder, "read", flaky)
    image = read(archive, cat)
    if failures < READ_ATTEMPTS:
        assert image.prepared is not None
        assert len(tries) == failures + 1
    else:
        assert (image.error_code, image.error_detail) == ("access", "a.jpg: timed out")
        assert len(tries) == READ_ATTEMPTS


def test_a_file_that_is_gone_is_not_asked_for_again(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def gone(_: Folder, path: str) -> bytes:
        tries.append(path)
        raise FileNotFoundError(path)

    monkeypatch.setattr(Folder, "read", gone)
    assert read(archive, b"").error_code == "access"
    assert len(tries) == 1


@pytest.mark.parametrize("place", ["model_store.storage.Folder.read", "batch.pipeline.read_image.read_image"])
def test_what_does_not_fit_into_memory_is_the_failure_of_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def giant(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(place, giant)
    write_files(tmp_path, {"a.jpg": photo("cat")})
    image = read(tmp_path, photo("cat"))
    assert (image.prepared, image.error_code) == (None, "too_large")
    assert "does not fit into memory" in str(image.error_detail)


def test_a_giant_that_lies_elsewhere_too_is_tried_there(tmp_path: Path) -> None:
    """A child process has little address space, and the sparse file is larger: nothing is simulated."""
    cat = photo("cat")
    write_files(tmp_path, {"a.tif": b"", "b.jpg": cat})
    os.truncate(tmp_path / "a.tif", 2**36)
    program = f"""
import resource
from batch.pipeline.read_image import image_bytes
resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
place = {{"source_root": {str(tmp_path)!r}, "path": "a.tif", "media_sha256": "{hashlib.sha256(cat).hexdigest()}"}}
print(image_bytes(place).error_code)
print(len(image_bytes(place | {{"elsewhere": [place | {{"path": "b.jpg"}}]}})))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["too_large", str(len(cat))], done.stderr
