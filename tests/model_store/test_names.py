"""The grammar of model names: three ways to write one, and nothing that leaves its folder."""

import pytest

from model_store.errors import BadRequest
from model_store.names import (
    DEFAULT_ALIAS,
    ModelRef,
    VersionId,
    parse_ref,
    parse_version,
    version_id,
)

HOSTILE = [
    "",
    " ",
    ".",
    "..",
    "../secret",
    "a/b",
    "a\\b",
    "/etc",
    ".hidden",
    "-rf",
    "_a",
    "a b",
    "a\n",
    "a\0",
    "%2e%2e",
    "ä",
    "a" * 65,
]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a", ModelRef("a", None, DEFAULT_ALIAS)),
        ("0", ModelRef("0", None, DEFAULT_ALIAS)),
        ("ssdlite-coco", ModelRef("ssdlite-coco", None, "production")),
        ("ssdlite-coco@1", ModelRef("ssdlite-coco", "1", None)),
        ("deer.v_2@2024-05-01+gpu.RC1", ModelRef("deer.v_2", "2024-05-01+gpu.RC1", None)),
        ("ssdlite-coco:canary", ModelRef("ssdlite-coco", None, "canary")),
        ("a" * 64 + "@" + "B" * 64, ModelRef("a" * 64, "B" * 64, None)),
    ],
)
def test_a_reference_is_a_name_with_a_version_or_an_alias(text: str, wanted: ModelRef) -> None:
    assert parse_ref(text) == wanted


@pytest.mark.parametrize(
    "text",
    [*HOSTILE, "A", "a@", "a:", "@1", ":x", "a@1:x", "a:x@1", "a@1@2", "a:X", "a@../1", "a:../x"],
)
def test_what_is_no_reference_is_refused_and_named(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a model") as refused:
        parse_ref(text)
    assert f"'{text}'" in str(refused.value)


@pytest.mark.parametrize("part", HOSTILE)
def test_neither_part_of_a_version_can_leave_its_folder(part: str) -> None:
    with pytest.raises(BadRequest, match="is no model name"):
        version_id(part, "1")
    with pytest.raises(BadRequest, match="is no version"):
        version_id("deer", part)


def test_only_versions_may_have_capitals() -> None:
    assert version_id("deer", "RC1") == VersionId("deer", "RC1")
    with pytest.raises(BadRequest):
        version_id("Deer", "1")


@pytest.mark.parametrize("text", ["deer@1", "ssdlite-coco@2024.1+gpu"])
def test_an_exact_version_reads_back_as_it_is_written(text: str) -> None:
    assert str(parse_version(text)) == text


@pytest.mark.parametrize("text", ["deer", "deer:canary"])
def test_an_alias_is_no_exact_version(text: str) -> None:
    with pytest.raises(BadRequest, match="deer@VERSION"):
        parse_version(text)
