"""The grammar of model references has three forms, and none can leave its folder."""

from pathlib import Path

import pytest

from model_store import names as names_module
from model_store.errors import BadRequest
from model_store.names import (
    DEFAULT_ALIAS,
    SHIPPED,
    ModelRef,
    VersionId,
    get_first_model,
    name_of_file,
    next_version,
    parse_ref,
    parse_version,
    version_id,
)

HOSTILE = ["", "..", "../secret", "a/b", "a\\b", ".hidden", "-rf", "a b", "a\n", "a\0", "ä", "a" * 65]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a", ModelRef("a", None, DEFAULT_ALIAS)),
        ("ssdlite-coco@1", ModelRef("ssdlite-coco", "1", None)),
        ("deer.v_2@2024-05-01+gpu.RC1", ModelRef("deer.v_2", "2024-05-01+gpu.RC1", None)),
        ("ssdlite-coco:canary", ModelRef("ssdlite-coco", None, "canary")),
        ("a" * 64 + "@" + "B" * 64, ModelRef("a" * 64, "B" * 64, None)),
    ],
)
def test_a_reference_is_a_name_with_a_version_or_an_alias(text: str, wanted: ModelRef) -> None:
    assert parse_ref(text) == wanted


@pytest.mark.parametrize(
    "text", [*HOSTILE, "A", "a@", "a:", "@1", ":x", "a@1:x", "a:x@1", "a@1@2", "a:X", "a@../1", "a:../x"]
)
def test_what_is_no_reference_is_refused_and_named(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a model") as refused:
        parse_ref(text)
    assert f"'{text}'" in str(refused.value)


@pytest.mark.parametrize("part", HOSTILE)
def test_neither_part_of_a_version_can_leave_its_folder(part: str) -> None:
    with pytest.raises(BadRequest, match="is not a model name"):
        version_id(part, "1")
    with pytest.raises(BadRequest, match="is not a version"):
        version_id("deer", part)


@pytest.mark.parametrize("text", ["deer", "deer:canary"])
def test_an_alias_is_no_exact_version(text: str) -> None:
    with pytest.raises(BadRequest, match="deer@VERSION"):
        parse_version(text)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("Deer_v2.fp16", "deer_v2"),
        ("nanodet_coco_416.yolov8-layout.fp16", "nanodet_coco_416"),
        ("deer.yolox-raw.INT8", "deer"),
        ("lite0_224.classifier.fp16", "lite0_224"),
        ("deer.fp16.v2", "deer.fp16.v2"),
        (".fp16", "fp16"),
        ("H\u00f6hle v2 (best)", "hohle-v2-best"),
        (".hidden-", "hidden"),
        ("x" * 63 + "-y", "x" * 63),
        ("deer@3", "deer-3"),
    ],
)
def test_a_file_names_its_model(stem: str, name: str) -> None:
    assert name_of_file(stem) == name
    assert version_id(name, "1").name == name


@pytest.mark.parametrize("stem", ["...", "\u9e7f"])
def test_a_file_of_which_no_name_can_be_made_is_refused(stem: str) -> None:
    with pytest.raises(BadRequest, match="give one with --name"):
        name_of_file(stem)


@pytest.mark.parametrize(
    ("taken", "next_one"),
    [
        ([], "1"),
        (["1", "9", "10"], "11"),
        (["2026-11", "v7", "007", "1.5", "aliases.json", "0"], "1"),
        (["4", "2026-11"], "5"),
    ],
)
def test_the_next_version_is_one_more_than_the_highest_number(taken: list[str], next_one: str) -> None:
    assert next_version("deer", taken) == VersionId("deer", next_one)


def test_the_model_to_begin_with_is_named_by_a_path_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SHIPPED.parent.parent.parent)
    assert get_first_model() == "resight models pull examples/models/ssdlite-coco"
    monkeypatch.chdir(tmp_path)
    assert get_first_model() == f"resight models pull {SHIPPED}"
    monkeypatch.setattr(names_module, "SHIPPED", tmp_path / "not in a wheel")
    assert get_first_model() == "resight models add FILE.onnx"
