"""The snips of one image: right pixels, files written once, and a row whatever happens."""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image, ImageOps

import batch.crops.write
import batch.pipeline.read_image
from batch.crops.write import SnipStage, cut_of, snip_name
from batch.pipeline.stage import StageProcess
from batch.schedule.policy import Snips
from model_store.config import Thresholds
from model_store.errors import StorageUnreachable
from model_store.storage import Folder
from tests.batch.box_bench import KEY, picture
from tests.batch.crops.bench import SnipBench, model_of, spec_of
from tests.fixtures_local import encoded, write_files

BOX = (10.0, 10.0, 30.0, 20.0)
CUT = cut_of(Snips(margin_frac=0.0, quality=95), model_of().config)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in (batch.pipeline.read_image._read.retry, batch.crops.write._retrying):
        monkeypatch.setattr(asked, "sleep", lambda _: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "archive", {"note.txt": b"somebody's"})


def planned(root: Path, data: bytes, *boxes: tuple[float, ...], size_px: tuple[int, int] = (60, 40)) -> dict[str, Any]:
    write_files(root, {"a": data})
    found = SnipBench.detections([(0.9, "cat", box) for box in boxes])  # type: ignore[misc]
    row = {"media_sha256": hashlib.sha256(data).hexdigest(), "source_root": str(root), "path": "a"}
    return row | {"width_px": size_px[0], "height_px": size_px[1], "boxes": found}


def writer(url: Path | str, run_id: str = "r1") -> SnipStage:
    return SnipStage(StageProcess("node", False, None), spec_of(run_id=run_id), model_of(), CUT, str(url))


def name_of(row: dict[str, Any], rank: int = 0) -> str:
    return snip_name(CUT.key, KEY, row["media_sha256"], rank)


def test_each_detection_is_a_file_and_the_row_names_them(root: Path, tmp_path: Path) -> None:
    row = planned(root, encoded(picture(1), "PNG"), BOX, (0.0, 0.0, 60.0, 40.0))
    got = writer(tmp_path / "snips").row(row)
    assert got.pop("finished_at").tzinfo is not None
    files = [tmp_path / "snips" / name_of(row, rank) for rank in (0, 1)]
    assert got == {
        "inference_key": KEY,
        "settings_key": CUT.key,
        "media_sha256": row["media_sha256"],
        "run_id": "r1",
        "status": "ok",
        "names": [name_of(row, 0), name_of(row, 1)],
        "bytes": sum(len(file.read_bytes()) for file in files),
    }
    assert [Image.open(file).size for file in files] == [(20, 10), (60, 40)]


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_region_is_that_of_the_picture_as_it_is_shown(
    root: Path, tmp_path: Path, orientation: int, kind: str
) -> None:
    stored = Image.fromarray(picture(orientation))
    stored.getexif()[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, kind, exif=stored.getexif(), **({"lossless": True} if kind == "WEBP" else {}))
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))).convert("RGB")
    row = planned(root, file.getvalue(), BOX, size_px=shown.size)
    got = writer(tmp_path / "snips").row(row)
    assert got["status"] == "ok", got
    snip = np.asarray(Image.open(tmp_path / "snips" / name_of(row))).astype(int)
    wanted = np.asarray(shown.crop((10, 10, 30, 20))).astype(int)
    assert np.abs(snip - wanted).mean() < 8  # that of JPEG; another place differs by some 85


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"path": "gone"}, "access", "gone"),
        ({"media_sha256": "f" * 64}, "changed", "run 'resight ingest' again"),
        ({"width_px": 61}, "crop", "the image is 60x40, but was 61x40"),
    ],
)
def test_what_cannot_be_cut_is_a_failed_row(
    root: Path, tmp_path: Path, change: dict[str, Any], code: str, words: str
) -> None:
    row = planned(root, encoded(picture(1), "PNG"), BOX) | change
    got = writer(tmp_path / "snips").row(row)
    assert (got["status"], got["error_code"]) == ("failed", code)
    assert words in got["error_detail"]
    assert (got["names"], got["bytes"]) == ([], 0)
    assert got["media_sha256"] == row["media_sha256"]
    assert not (tmp_path / "snips").exists()


def test_a_side_that_jpeg_cannot_have_is_a_failed_row(root: Path, tmp_path: Path) -> None:
    data = encoded(np.zeros((1, 70_000, 3), np.uint8), "PNG")
    row = planned(root, data, (0.0, 0.0, 70_000.0, 1.0), size_px=(70_000, 1))
    got = writer(tmp_path / "snips").row(row)
    assert (got["status"], got["error_code"]) == ("failed", "crop")
    assert got["error_detail"].startswith("snip 0: ")


def test_what_is_there_is_never_written_again(root: Path, tmp_path: Path) -> None:
    row = planned(root, encoded(picture(1), "PNG"), BOX)
    first = writer(tmp_path / "snips").row(row)
    file = tmp_path / "snips" / name_of(row)
    before = file.stat()
    second = writer(tmp_path / "snips", "r2").row(row)
    assert (second["status"], second["names"]) == ("ok", first["names"])
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_encoders_bytes_of_the_same_snip_are_kept(root: Path, tmp_path: Path) -> None:
    row = planned(root, encoded(picture(1), "PNG"), BOX)
    other = encoded(picture(1)[10:20, 10:30], "JPEG", quality=40)
    write_files(tmp_path / "snips", {name_of(row): other})
    got = writer(tmp_path / "snips").row(row)
    assert (got["status"], got["bytes"]) == ("ok", len(other))
    assert (tmp_path / "snips" / name_of(row)).read_bytes() == other


@pytest.mark.parametrize("other", [b"notes", encoded(picture(2), "JPEG"), encoded(picture(1)[10:20, 10:30], "PNG")])
def test_something_else_under_the_name_is_left_alone_and_said(root: Path, tmp_path: Path, other: bytes) -> None:
    row = planned(root, encoded(picture(1), "PNG"), BOX)
    write_files(tmp_path / "snips", {name_of(row): other})
    got = writer(tmp_path / "snips").row(row)
    assert (got["status"], got["error_code"]) == ("failed", "differs")
    assert f"{name_of(row)} exists" in got["error_detail"]
    assert (tmp_path / "snips" / name_of(row)).read_bytes() == other


def test_writers_of_one_snip_at_once_all_succeed_with_one_file(root: Path, tmp_path: Path) -> None:
    row = planned(root, encoded(picture(1), "PNG"), BOX, (0.0, 0.0, 60.0, 40.0))
    writers = [writer(tmp_path / "snips") for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        rows = list(threads.map(lambda one: one.row(row), writers * 4))
    assert {(got["status"], tuple(got["names"]), got["bytes"]) for got in rows} == {
        ("ok", (name_of(row, 0), name_of(row, 1)), rows[0]["bytes"])
    }
    files = [path for path in (tmp_path / "snips").rglob("*") if path.is_file()]
    assert len(files) == 2  # and nothing half-written beside them


def test_a_folder_of_snips_that_is_away_stops_the_run_after_some_tries(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, tried = planned(root, encoded(picture(1), "PNG"), BOX), []
    create = Folder.create

    def away(folder: Folder, name: str, data: bytes) -> None:
        tried.append(name)
        if len(tried) <= fails:
            raise StorageUnreachable("reset by peer")
        create(folder, name, data)

    monkeypatch.setattr(Folder, "create", away)
    fails = 2
    assert writer(tmp_path / "snips").row(row)["status"] == "ok"
    fails = 99
    with pytest.raises(StorageUnreachable):
        writer(tmp_path / "other").row(row)


def test_on_s3_too_each_is_written_once(root: Path, s3_endpoint: str) -> None:
    s3 = boto3.client("s3", endpoint_url=s3_endpoint)
    s3.create_bucket(Bucket="snips")
    row = planned(root, encoded(picture(1), "PNG"), BOX)
    url = "s3://snips/crops"
    first, second = (writer(url, run).row(row) for run in ("r1", "r2"))
    assert first["status"] == second["status"] == "ok", (first, second)
    assert first["names"] == second["names"] == [name_of(row)]
    (found,) = s3.list_objects_v2(Bucket="snips")["Contents"]
    assert (found["Key"], found["Size"]) == (f"crops/{name_of(row)}", first["bytes"])
    data = s3.get_object(Bucket="snips", Key=found["Key"])["Body"].read()
    assert Image.open(io.BytesIO(data)).size == (20, 10)
    s3.put_object(Bucket="snips", Key=found["Key"], Body=b"other")
    assert writer(url, "r3").row(row)["error_code"] == "differs"


PLAIN = Thresholds(default=0.5)


def key(snips: Snips | None = None, thresholds: Thresholds = PLAIN) -> str:
    return cut_of(snips or Snips(), model_of(thresholds).config).key


def test_the_key_is_the_digest_of_what_decides_the_files() -> None:
    text = '{"encoder":1,"least":[0.5,0.75],"margin_frac":0.1,"quality":90}'
    assert json.loads(text)
    wanted = hashlib.sha256(text.encode()).hexdigest()
    assert key(thresholds=Thresholds(default=0.5, per_label={"dog": 0.75})) == wanted


@pytest.mark.parametrize(
    "snips", [Snips(margin_frac=0.2), Snips(quality=91), Snips(min_score=0.25), Snips(min_score=0)]
)
def test_every_setting_is_in_the_key(snips: Snips) -> None:
    assert key(snips) != key()


def test_so_are_the_thresholds_of_the_model_unless_a_score_is_given() -> None:
    others = [Thresholds(default=0.6), Thresholds(default=0.5, per_label={"dog": 0.7})]
    assert len({key(thresholds=one) for one in [PLAIN, *others]}) == 3
    given = Snips(min_score=0.5)
    assert {key(given, one) for one in [PLAIN, *others]} == {key()}


def test_another_encoder_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(batch.crops.write, "ENCODER", 2)
    assert key() != before


def test_a_name_has_both_keys_the_image_and_the_rank() -> None:
    name = snip_name("5" * 64, KEY, "ab" * 32, 3)
    assert name == f"{'5' * 16}/0123456789abcdef/ab/{'ab' * 32}-3.jpg"
