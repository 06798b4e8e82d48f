"""resight models …: a store made, shown, checked and promoted; test_models_pull.py copies between stores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import cli.antenna
from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from batch.planning.scaled_decoding import ScaledDecoding
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.client import Client
from serve.embedded.home_lock import home_lock
from serve.rollout.operations import Operation, Outcome, new_outcome
from serve.settings import Settings
from tests.cli.conftest import Resight
from tests.fixtures_local import MODELS, MOTION, PHOTOS, encoded, motion_store, photo, write_files, write_json
from tests.graphs import pooling, random_head
from tests.model_store.classifiers import PLAIN, colours
from tests.support.disks import deny

SSDLITE = {
    "preprocess": {"resize": "stretch"},
    "score_floor": 0.05,
    "nms": {"iou": 0.5, "max_detections": 100},
    "batch": {"max": 1},
}
WEIGHTS = MODELS / "ssdlite-coco" / "1" / "model.onnx"
JSON = ("--format", "json")


@pytest.fixture
def store(home: Path) -> ModelStore:
    """No model yet."""
    return ModelStore(str(home / "models"))


@pytest.fixture
def blobs(home: Path) -> ModelStore:
    """blobs@1, @2 and @3; production is 1."""
    return motion_store(home / "models", "1", "2", "3")


def test_an_empty_store_is_an_empty_list_in_every_format(resight: Resight) -> None:
    header = ["model", "kind", "aliases", "rollout", "weights_sha256", "inference_key"]
    assert resight("models", "list").ok().split() == header
    assert json.loads(resight("models", "list", *JSON).ok()) == []
    assert resight("models", "list", "--format", "csv").ok().split() == [",".join(header)]


def test_onnx_weights_are_added_with_probe_readme_and_licence(
    resight: Resight, store: ModelStore, tmp_path: Path
) -> None:
    config = write_json(tmp_path / "c.json", SSDLITE)
    readme = tmp_path / "about.md"
    readme.write_text("# deer")
    words = ("models", "add", WEIGHTS, "--name", "deer", "--version", "3", "--config", config)
    more = ("--probe", PHOTOS / "cat.jpg", "--readme", readme, "--licence", readme)
    facts = json.loads(resight(*words, *more, *JSON).ok())
    added = store.verify(VersionId("deer", "3"))
    recognised = facts.pop("recognised")
    assert facts == {
        "model": "deer@3",
        "weights_sha256": added.info.weights_sha256,
        "inference_key": added.info.inference_key,
    }
    assert recognised["decoder"]["found"] == "yolov8"
    assert recognised["resize"] == {"found": "stretch", "why": "the config file"}
    assert store.read_file(added, "probe/cat.jpg") == photo("cat")
    assert store.read_file(added, "README.md") == store.read_file(added, "LICENSE") == b"# deer"


def test_a_standard_export_needs_no_flags(resight: Resight, store: ModelStore, tmp_path: Path) -> None:
    weights = write_files(tmp_path, {"SSDLite COCO.v1.onnx": WEIGHTS.read_bytes()})
    done = resight("models", "add", weights / "SSDLite COCO.v1.onnx")
    assert [str(version) for version in store.versions("ssdlite-coco.v1")] == ["ssdlite-coco.v1@1"]
    lines = {line.split("  ")[0]: line for line in done.ok().splitlines()}
    assert lines["model"].endswith("ssdlite-coco.v1@1")
    assert lines["decoder"].split()[1] == "yolov8"
    assert "4 + 80 numbers for each anchor" in lines["decoder"]
    assert "80: person, bicycle, car, motorcycle, airplane and 75 more" in lines["labels"]
    assert lines["input"].endswith("300 x 300 px  (fixed by the graph)")
    assert "RGB, 0 to 1  (the graph begins with Mul 2, Sub 1)" in lines["pixels"]
    assert "stretch  (1,917 anchors are not the cells" in lines["resize"]
    assert "over IoU 0.6, within a class, at most 300" in lines["suppression"]
    assert "promote ssdlite-coco.v1@1" in done.err


def test_versions_are_counted_and_the_same_one_is_not_added_twice(
    resight: Resight, store: ModelStore, motion_config: Path, tmp_path: Path
) -> None:
    words = ("models", "add", "--name", "deer", *JSON, "--config")
    other = write_json(tmp_path / "c.json", MOTION | {"score_floor": 0.2})
    for config, version in ((motion_config, "1"), (other, "2"), (motion_config, "1"), (other, "2")):
        again = resight(*words, config)
        assert json.loads(again.ok())["model"] == f"deer@{version}"
    assert "deer@2 already has these weights and this config" in again.err
    assert "to add it again" not in again.err
    cat = ("--probe", PHOTOS / "cat.jpg")
    assert "to add it again with probe/cat.jpg, use another --version" in resight(*words, other, *cat).err
    assert [version.version for version in store.versions("deer")] == ["1", "2"]
    resight(*words, other, "--version", "3", *cat).ok()
    kept = resight(*words, other, *cat)
    assert json.loads(kept.ok())["model"] == "deer@3"
    assert "to add it again" not in kept.err
    assert "versions never change" in resight(*words, motion_config, "--version", "1").refused(6)


def test_a_model_without_a_usable_file_name_needs_a_name(resight: Resight, motion_config: Path, tmp_path: Path) -> None:
    assert "a weights file is missing" in resight("models", "add").refused(2)
    assert "give one with --name" in resight("models", "add", "--config", motion_config).refused(2)
    folder = write_files(tmp_path, {"().onnx": b"not read"})
    assert "give one with --name" in resight("models", "add", folder / "().onnx").refused(2)


def test_a_guess_is_said(resight: Resight, tmp_path: Path) -> None:
    weights = pooling(5, {"names": "['animal']", "stride": "64"})
    folder = write_files(tmp_path, {"md_v5a.onnx": weights})
    out = resight("models", "add", folder / "md_v5a.onnx").ok()
    assert "guessed: neither graph nor metadata state it" in out
    assert "1280 is usual for stride 64" in out


def test_adding_measures_what_scaled_decoding_gains_on_the_pictures_of_the_catalogue(
    resight: Resight, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScaledDecoding, "speedup", 1.5)
    pixels = np.full((960, 1280, 3), 90, np.uint8)
    archive = write_files(tmp_path / "archive", {f"{i}.jpg": encoded(pixels + i, "JPEG") for i in range(5)})
    ingest(Tables(str(home / "tables")), str(archive))

    def notes(version: str, shrink: int) -> str:
        preprocess = {"preprocess": {"resize": "stretch", "jpeg_shrink": shrink}}
        config = write_json(tmp_path / "c.json", SSDLITE | preprocess)
        words = ("--version", version, "--config", config, "--probe", PHOTOS / "cat.jpg")
        return resight("models", "add", WEIGHTS, "--name", "deer", *words).err

    found = notes("1", 1)
    assert "jpeg_shrink 2 reads a picture of 1280 x 960 px, the most frequent size in the catalogue" in found
    assert "Of 0 boxes in 4 pictures, 0 keep their label and place. It makes another version" in found
    assert "jpeg_shrink" not in notes("2", 2)
    monkeypatch.setattr(ScaledDecoding, "speedup", 1.04)
    assert "jpeg_shrink" not in notes("4", 1), "it is not worth another version"
    shutil.rmtree(archive)
    assert "would gain was not measured" in notes("3", 1)


def test_adding_without_a_probe_says_so(resight: Resight, motion_config: Path) -> None:
    words = ("models", "add", "--name", "blobs", "--config", motion_config, "--version")
    notes = resight(*words, "1").err
    assert "no --probe image was given" in notes
    assert notes.endswith("resight models promote blobs@1\n")
    again = resight(*words, "2").err
    assert "until one is promoted, 'blobs' refers to none of blobs@1, blobs@2" in again


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "a weights file is missing: give the .onnx or .pt2 file"),
        (
            [WEIGHTS, "--probe", PHOTOS / "README.md"],
            2,
            f"probe {PHOTOS / 'README.md'}: this is application/octet-stream",
        ),
        ([WEIGHTS, *2 * ["--probe", PHOTOS / "cat.jpg"]], 2, "two --probe images have the same file name"),
        (["away.onnx"], 2, "cannot read away.onnx: No such file"),
        (["https://example.org/deer.onnx"], 2, "it is a URL: download the file first"),
        ([PHOTOS / "cat.jpg"], 6, "this is not an ONNX file but a JPEG image"),
        ([PHOTOS], 2, "is a folder: use the .onnx or .pt2 file"),
        ([WEIGHTS.parent.parent], 2, f"with: resight models pull {WEIGHTS.parent.parent}"),
        ([WEIGHTS.parent], 2, f"with: resight models pull {WEIGHTS.parent}"),
        ([WEIGHTS, "--config", "away.json"], 2, "cannot read away.json"),
        ([WEIGHTS, "--config", PHOTOS / "README.md"], 2, "is not JSON"),
        ([WEIGHTS, "--name", "../deer"], 2, "is not a model name"),
        ([WEIGHTS, "--version", "a/b"], 2, "is not a version"),
    ],
)
def test_what_cannot_be_added_is_refused_and_leaves_no_version(
    resight: Resight, store: ModelStore, words: list[object], code: int, message: str
) -> None:
    done = resight("models", "add", "--name", "deer", "--version", "1", *words)
    assert message in done.refused(code)
    assert store.versions("deer") == []


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        ([], 2, "must contain a JSON object"),
        ({**MOTION, "labels": []}, 6, "labels"),
        ({**MOTION, "decoder": "yolov8"}, 6, "cannot be combined with decoder"),
        ({**MOTION, "runtime": "motion"}, 2, "a weights file is missing"),
    ],
)
def test_a_wrong_config_is_refused_and_names_the_field(
    resight: Resight, tmp_path: Path, config: object, code: int, message: str
) -> None:
    path = write_json(tmp_path / "c.json", config)
    done = resight("models", "add", "--name", "blobs", "--version", "1", "--config", path)
    assert message in done.refused(code)


def test_list_shows_aliases_and_damage_costs_only_its_own_line(
    resight: Resight, blobs: ModelStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "models" / "blobs" / "2" / "config.json").write_text("{}")
    (home / "models" / "bees").mkdir()
    deny(monkeypatch, "bees")
    done = resight("models", "list", *JSON)
    rows = json.loads(done.ok())
    assert [(row["model"], row["aliases"]) for row in rows] == [("blobs@1", "production"), ("blobs@3", "")]
    assert done.err.count("blobs@2: ") == 1
    assert "unusable: bees: cannot list" in done.err


def test_canaries_shadows_and_pins_are_shown_and_block_a_removal(resight: Resight, blobs: ModelStore) -> None:
    """Also without a cluster."""
    resight("models", "canary", "blobs@2", "20").ok()
    resight("models", "shadow", "blobs@3", "12.5").ok()
    for version, why in (
        ("1", "the alias blobs:production refers to it (resight models promote blobs@OTHER"),
        ("2", "it is the canary of blobs:production (resight models canary blobs@2 0)"),
        ("3", "it is the shadow of blobs:production (resight models shadow blobs@3 0)"),
    ):
        for yes in ([], ["--yes"]):
            assert why in resight("models", "remove", f"blobs@{version}", *yes).refused(2)
    resight("models", "pin", "blobs").ok()
    wanted = {
        "blobs@1": "pinned as production",
        "blobs@2": "canary of production (20 %)",
        "blobs@3": "shadow of production (12.5 %)",
    }
    rows = json.loads(resight("models", "list", *JSON).ok())
    assert {row["model"]: row["rollout"] for row in rows} == wanted
    assert "canary of production (20 %)" in resight("models", "list").ok()
    shown = json.loads(resight("models", "show", "blobs", *JSON).ok())
    assert (shown["aliases"], shown["rollout"]) == ("production", wanted["blobs@1"])
    status = json.loads(resight("status", *JSON).out)
    assert status["rollout"] == "; ".join(f"{version}: {one}" for version, one in wanted.items())
    resight("models", "unpin", "blobs").ok()
    resight("models", "canary", "blobs@2", "0").ok()
    resight("models", "remove", "blobs@2", "--yes").ok()


def test_show_gives_identity_config_and_files(resight: Resight, blobs: ModelStore) -> None:
    for ref in ("blobs", "blobs@1", "blobs:production"):
        facts = json.loads(resight("models", "show", ref, *JSON).ok())
        assert (facts["model"], facts["decoder"], facts["labels"]) == ("blobs@1", "blobs", ["blob"])
        assert {"config.json", "probe/expected.json"} <= set(facts["files"])
    assert "blobs@1" in resight("models", "show", "blobs").ok()


def test_verify_accepts_a_sound_version_and_refuses_a_changed_one(
    resight: Resight, blobs: ModelStore, home: Path
) -> None:
    assert "blobs@1 is valid" in resight("models", "verify", "blobs@1").err
    (home / "models" / "blobs" / "1" / "README.md").write_text("changed")
    assert "README.md has sha256" in resight("models", "verify", "blobs@1").refused(6)


def test_verify_of_a_name_checks_every_version_that_may_serve(resight: Resight, blobs: ModelStore, home: Path) -> None:
    rows = json.loads(resight("models", "verify", "blobs", *JSON).ok())
    assert [row["model"] for row in rows] == ["blobs@1"]
    resight("models", "promote", "blobs@2").ok()
    resight("models", "canary", "blobs@3", "20").ok()
    rows = json.loads(resight("models", "verify", "blobs", *JSON).ok())
    assert [row["model"] for row in rows] == ["blobs@1", "blobs@2", "blobs@3"]
    for version in "13":
        (home / "models" / "blobs" / version / "README.md").write_text("changed")
    done = resight("models", "verify", "blobs")
    assert done.code == 6
    lines = ("blobs@2 is valid", "blobs@3: README.md has sha256", "error blobs@1: README.md has sha256")
    assert all(line in done.err for line in lines)


def test_promote_moves_the_alias_only_to_what_loads(resight: Resight, blobs: ModelStore, home: Path) -> None:
    assert "blobs:production is now blobs@3" in resight("models", "promote", "blobs@3").err
    resight("models", "promote", "blobs@2", "--alias", "canary").ok()
    assert blobs.aliases("blobs") == {"production": "3", "canary": "2"}
    (home / "models" / "blobs" / "2" / "probe" / "expected.json").unlink()
    resight("models", "promote", "blobs@2").refused(6)
    assert blobs.aliases("blobs") == {"production": "3", "canary": "2"}


def test_the_name_of_an_only_version_is_enough(resight: Resight, blobs: ModelStore, home: Path) -> None:
    for version in "12":
        shutil.rmtree(home / "models" / "blobs" / version)
    assert "blobs:production is now blobs@3" in resight("models", "promote", "blobs").err


@pytest.mark.parametrize("words", ["reload", "pin blobs", "release blobs@2", "remove blobs@3 --yes"])
def test_commands_reach_what_serves_the_home_before_another_cluster(
    resight: Resight, blobs: ModelStore, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    urls: list[str] = []

    def request(client: Client, operation: Operation | None = None) -> Outcome:
        urls.append(str(client._http.base_url))
        return new_outcome(operation or Operation(kind="pin", name="blobs"))

    for method in ("reload", "apply"):
        monkeypatch.setattr(f"serve.client.Client.{method}", request)
    if words == "reload":
        assert "neither a cluster nor 'resight serve' is running" in resight("models", "reload").refused(8)
    monkeypatch.setenv("RESIGHT_ENDPOINT", "http://other:1")
    with home_lock(Settings(), "http://127.0.0.1:8123"):
        resight("models", *words.split()).ok()
        with cli.antenna._resight(Settings()) as client:
            request(client)
    with cli.antenna._resight(Settings()) as client:
        request(client)
    assert urls == [*["http://127.0.0.1:8123"] * 2, "http://other:1"]


def test_a_wrong_reference_is_refused_and_says_what_there_is(resight: Resight, blobs: ModelStore) -> None:
    for words, code, message in (
        (["promote", "blobs"], 2, "instead of 'blobs': blobs@VERSION; available: blobs@1, blobs@2, blobs@3"),
        (["promote", "blobs:production"], 2, "name the version instead of 'blobs:production'"),
        (["remove", "deer"], 2, "name the version instead of 'deer': deer@VERSION\n"),
        (["promote", "blobs@9"], 6, "or is not READY yet; available: blobs@1, blobs@2, blobs@3"),
        (["promote", "blobs@1", "--alias", "Bad Alias"], 2, "is not a model"),
        (["show", "deer"], 6, "available: blobs"),
        (["history", "deer"], 6, "unknown model 'deer' in"),
        (["show", "blobs:canary"], 6, "no alias 'canary'"),
        (["verify", "blobs@9"], 6, "available: blobs@1"),
        (["verify", ""], 2, "is not a model"),
        (["pull", "away"], 6, "no model version in away; to add a weights file, such as .onnx: resight models add"),
        (["pull", "away", "blobs"], 6, "unknown model 'blobs' in"),
        (["pull", "away", "blobs@1"], 6, "unknown model 'blobs' in"),
    ):
        assert message in resight("models", *words).refused(code)


def test_adding_the_same_files_again_repairs_damaged_weights(resight: Resight, tmp_path: Path, home: Path) -> None:
    weights = tmp_path / "generated.onnx"
    weights.write_bytes(random_head("yolox_raw"))
    words = ("models", "add", weights, "--name", "trailcam", "--probe", PHOTOS / "cat.jpg")
    resight(*words).ok()
    stored = home / "models" / "trailcam" / "1" / "model.onnx"
    stored.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert f"copy the original to {home}/models/trailcam/1/model.onnx" in resight(
        "models", "verify", "trailcam@1"
    ).refused(6)
    again = resight(*words)
    again.ok()
    assert "repaired: model.onnx" in again.err
    assert "nothing was added" in again.err
    resight("models", "verify", "trailcam@1").ok()
    (home / "models" / "trailcam" / "1" / "config.json").unlink()
    assert "trailcam@2" in resight(*words).ok(), "a version without its config is not one of these files"


def test_detections_beside_the_picture_are_a_doubt_that_is_said(resight: Resight, tmp_path: Path) -> None:
    """These weights take RGB from 0 to 1, as their graph shows; with 0 to 255 they detect things anywhere."""
    weights = tmp_path / "generated.onnx"
    weights.write_bytes(random_head("yolox_raw"))
    words = ("models", "add", weights, "--name", "trailcam", "--probe", PHOTOS / "cat.jpg")
    assert "beside" not in resight(*words).err
    wrong = {"preprocess": {"channel_order": "BGR", "divide_by": 1, "pad_value": 114}}
    config = write_json(tmp_path / "trailcam.json", wrong)
    assert "lie outside the picture" in resight(*words, "--config", config).err
    hidden = write_json(tmp_path / "hidden.json", wrong | {"thresholds": {"default": 1.0}})
    assert "lie outside" not in resight(*words, "--config", hidden).err, "no answer would show them"


def test_a_classifier_is_added_listed_verified_and_promoted_like_a_detector(resight: Resight, tmp_path: Path) -> None:
    file, config = tmp_path / "colours.onnx", write_json(tmp_path / "colours.json", PLAIN)
    file.write_bytes(colours())
    added = resight("models", "add", file, "--config", config, "--probe", PHOTOS / "cat.jpg", "--format", "json")
    said = json.loads(added.ok())
    assert said["model"] == "colours@1"
    assert said["recognised"]["kind"]["found"] == "classifier"
    assert "outside the picture" not in added.err
    resight("models", "verify", "colours@1").ok()
    resight("models", "promote", "colours@1").ok()
    (row,) = json.loads(resight("models", "list", "--format", "json").ok())
    assert (row["model"], row["kind"], row["aliases"]) == ("colours@1", "classifier", "production")
    shown = json.loads(resight("models", "show", "colours", "--format", "json").ok())
    assert (shown["kind"], shown["scores"]) == ("classifier", "logits")
    refused = resight("detect", PHOTOS / "cat.jpg", "--model", "colours").refused(2)
    assert "colours@1 is a classifier, and a detector is needed here" in refused
