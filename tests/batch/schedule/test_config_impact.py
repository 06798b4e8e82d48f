"""Test what each difference needs: every field is listed, in agreement with the inference key."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from batch.schedule.config_impact import NEEDS, ConfigChange, ConfiguredModel, changes, numerics_of, overall
from model_store.config import ModelConfig, OnnxRuntime, Thresholds, TorchRuntime
from model_store.inference_key import NUMERICS_VERSION, inference_key, weights_digest

ONE, OTHER = "1" * 64, "2" * 64
TILING = {"tile_px": 800}
BASE: dict[str, Any] = {
    "runtime": {"kind": "onnx"},
    "decoder": "yolov8",
    "labels": ["deer", "fox"],
    "preprocess": {"tiling": TILING},
}
IMPORTED: dict[str, Any] = {
    "runtime": {"kind": "external", "tool": "megadetector", "detector": "md_v5a", "file_sha256": "a" * 64},
    "decoder": "external",
    "labels": ["animal"],
}
MOTION: dict[str, Any] = {"runtime": {"kind": "motion"}, "decoder": "blobs", "labels": ["blob"]}


def leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the dotted names of all fields of a model, nested ones included, as the classes declare them."""
    for name, field in model.model_fields.items():
        where = f"{path}.{name}".lstrip(".")
        below = models_of(field.annotation)
        if not below or type(None) in get_args(field.annotation):
            yield where
        for kind in below:
            yield from leaves(kind, where)


def models_of(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [kind for part in get_args(annotation) for kind in models_of(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def config(base: dict[str, Any], **changed: Any) -> ModelConfig:
    """Return the config of `base` with `changed` fields; their dotted names have __ for the dots."""
    value = copy.deepcopy(base)
    for name, new in changed.items():
        *path, last = name.split("__")
        place = value
        for part in path:
            place = place.setdefault(part, {})
        place[last] = new
    return ModelConfig.model_validate(value)


def side(found: ModelConfig, weights: str = ONE, **more: Any) -> ConfiguredModel:
    runtime = found.runtime
    files = {runtime.weights: weights} if isinstance(runtime, OnnxRuntime | TorchRuntime) else {}
    shown = more.pop("shown", found.thresholds)
    return ConfiguredModel(found, weights_digest(found, files), shown, **more)


def names(found: list[ConfigChange]) -> list[str]:
    return [change.field for change in found]


ONE_CHANGE = [
    ("runtime__weights", "renamed.onnx", BASE),
    ("runtime__min_contrast", 25.0, MOTION),
    ("runtime__min_area_frac", 0.01, MOTION),
    ("runtime__background_sigma_px", 12.0, MOTION),
    ("runtime__max_blobs", 7, MOTION),
    ("runtime__tool", "speciesnet", IMPORTED),
    ("runtime__detector", "md_v5b", IMPORTED),
    ("runtime__metadata", '{"a": 1}', IMPORTED),
    ("runtime__file_sha256", "b" * 64, IMPORTED),
    ("runtime__min_class_score", 0.5, IMPORTED),
    ("decoder", "yolov5", BASE),
    ("preprocess__resize", "stretch", BASE),
    ("preprocess__side_px", 320, BASE),
    ("preprocess__height_px", 320, BASE),
    ("preprocess__stride_px", 64, BASE),
    ("preprocess__interpolation", "area", BASE),
    ("preprocess__pad_value", 0, BASE),
    ("preprocess__channel_order", "BGR", BASE),
    ("preprocess__divide_by", 1.0, BASE),
    ("preprocess__mean", [0.5, 0.0, 0.0], BASE),
    ("preprocess__std", [0.5, 1.0, 1.0], BASE),
    ("preprocess__jpeg_shrink", 2, MOTION),
    ("preprocess__damaged", "refuse", BASE),
    ("preprocess__tiling", None, BASE),
    ("preprocess__tiling__tile_px", 640, BASE),
    ("preprocess__tiling__overlap_frac", 0.1, BASE),
    ("preprocess__tiling__whole", False, BASE),
    ("preprocess__tiling__merge__kind", "union", BASE),
    ("preprocess__tiling__merge__measure", "iou", BASE),
    ("preprocess__tiling__merge__over", 0.4, BASE),
    ("nms__kind", "none", BASE),
    ("nms__iou", 0.6, BASE),
    ("nms__class_aware", False, BASE),
    ("nms__inclusive_px", True, BASE),
    ("nms__max_detections", 10, BASE),
    ("labels", ["deer", "cat"], BASE),
    ("score_floor", 0.2, BASE),
    ("thresholds__default", 0.5, BASE),
    ("batch__max", 2, BASE),
    ("batch__wait_ms", 3.0, BASE),
    ("licence", "MIT", BASE),
    ("source", "there", BASE),
    ("description", "better", BASE),
]


def test_one_changed_field_is_named_alone_with_both_values() -> None:
    for name, value, base in ONE_CHANGE:
        old, new = side(config(base)), side(config(base, **{name: value}))
        (found,) = changes(old, new)
        assert found.field == name.replace("__", ".")
        assert (found.old, found.new) != (None, None)
        assert found.old != found.new
        assert found.new == value or name == "preprocess__tiling"
        assert (found.needs == "inference") == (old.inference_key != new.inference_key)


@pytest.mark.parametrize(
    ("name", "value", "base", "why"),
    [
        ("preprocess__tiling", None, BASE, "objects are detected in tiles, or no longer"),
        ("preprocess__tiling__overlap_frac", 0.1, BASE, "the image is cut into different tiles"),
        ("preprocess__tiling__whole", False, BASE, "the whole image is searched in addition to its tiles"),
        ("preprocess__tiling__merge__over", 0.4, BASE, "boxes of different tiles are merged differently"),
        ("preprocess__jpeg_shrink", 2, MOTION, "JPEGs are decoded at a different size"),
        ("preprocess__stride_px", 64, BASE, "the network gets different pixels if resize is rect"),
        ("preprocess__mean", [0.5, 0.0, 0.0], BASE, "the network gets different pixels"),
        ("runtime__min_contrast", 25.0, MOTION, "a motion detector has these settings in place of weights"),
        ("runtime__tool", "speciesnet", IMPORTED, "another tool made the results"),
        ("runtime__weights", "renamed.onnx", BASE, "a file name"),
    ],
)
def test_a_reason_is_about_the_field(name: str, value: Any, base: dict[str, Any], why: str) -> None:
    (found,) = changes(side(config(base)), side(config(base, **{name: value})))
    assert found.why.startswith(why)


def test_the_table_above_has_every_field() -> None:
    elsewhere = {"kind", "runtime.kind", "thresholds.per_label"}  # kind: always `detector` here
    assert {name.replace("__", ".") for name, *_ in ONE_CHANGE} == set(leaves(ModelConfig)) - elsewhere


def pick(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


TILINGS = st.none() | st.fixed_dictionaries(
    {
        "tile_px": pick(640, 800),
        "whole": st.booleans(),
        "merge": st.fixed_dictionaries({"kind": pick("suppress", "union")}),
    }
)
PREPROCESS = st.fixed_dictionaries(
    {
        "side_px": pick(320, 640),
        "height_px": pick(None, 320),
        "stride_px": pick(32, 64),
        "mean": pick([0.0, 0.0, 0.0], [-0.0, 0.0, 0.0], [0.5, 0.0, 0.0]),
        "damaged": pick("tolerate", "refuse"),
    }
) | st.fixed_dictionaries({"jpeg_shrink": pick(1, 2)})
COMMON = {
    "labels": pick(["deer", "fox"], ["fox", "deer"], ["deer", "cat"]),
    "preprocess": st.builds(
        lambda base, tiling: base if "jpeg_shrink" in base else {**base, "tiling": tiling}, PREPROCESS, TILINGS
    ),
    "nms": st.fixed_dictionaries({"iou": pick(0.5, 0.6), "inclusive_px": st.booleans()}),
    "score_floor": pick(0.0, -0.0, 0.01, 0.2),
    "thresholds": st.fixed_dictionaries({"default": pick(0.1, 0.25)}),
    "batch": st.fixed_dictionaries({"max": pick(1, 8)}),
    "description": pick("", "x"),
}
NETWORKS = st.fixed_dictionaries(
    {
        **COMMON,
        "runtime": pick({"kind": "onnx"}, {"kind": "onnx", "weights": "b.onnx"}, {"kind": "torch"}),
        "decoder": pick("yolov5", "yolov8"),
    }
)
MOTIONS = st.fixed_dictionaries(
    {
        **COMMON,
        "runtime": st.fixed_dictionaries(
            {"kind": st.just("motion"), "min_contrast": pick(24, 24.0, 25), "max_blobs": pick(50, 5)}
        ),
        "decoder": st.just("blobs"),
    }
)
SIDES = st.builds(
    lambda value, weights, numerics, layers: side(
        ModelConfig.model_validate(value), weights, numerics=numerics, layers=layers
    ),
    NETWORKS | MOTIONS,
    pick(ONE, OTHER),
    pick(1, 2),
    pick((), ("a",), ("a", "b")),
)


@given(SIDES, SIDES)
def test_the_inference_key_differs_exactly_when_a_change_needs_inference(
    old: ConfiguredModel, new: ConfiguredModel
) -> None:
    found = changes(old, new)
    assert (overall(found) == "inference") == (old.inference_key != new.inference_key)
    assert [NEEDS.index(c.needs) for c in found] == sorted((NEEDS.index(c.needs) for c in found), reverse=True)
    assert len(set(names(found))) == len(found)
    assert sorted(names(changes(new, old))) == sorted(names(found))


def test_a_zero_that_is_written_otherwise_is_another_key_and_so_a_change() -> None:
    old, new = (side(config(BASE, preprocess__mean=[zero, 0.0, 0.0])) for zero in (0.0, -0.0))
    assert old.inference_key != new.inference_key
    assert overall(changes(old, new)) == "inference"


@given(SIDES)
def test_a_side_does_not_differ_from_itself(one: ConfiguredModel) -> None:
    assert changes(one, copy.deepcopy(one)) == []
    assert overall([]) == "nothing"


def test_a_label_that_is_only_renamed_needs_inference_and_says_why() -> None:
    (found,) = changes(side(config(BASE)), side(config(BASE, labels=["deer", "vixen"])))
    assert (found.needs, found.old, found.new) == ("inference", ["deer", "fox"], ["deer", "vixen"])
    assert "renamed" in found.why


def test_other_weights_under_the_same_name_are_another_model() -> None:
    (found,) = changes(side(config(BASE), ONE), side(config(BASE), OTHER))
    assert (found.field, found.needs) == ("weights_sha256", "inference")


def test_another_numerics_version_of_the_same_model_is_named_so() -> None:
    (found,) = changes(side(config(BASE), numerics=1), side(config(BASE), numerics=2))
    assert (found.field, found.old, found.new, found.needs) == ("numerics_version", 1, 2, "inference")


def test_between_runtimes_only_what_both_have_is_compared() -> None:
    found = changes(side(config(BASE)), side(config(MOTION)))
    assert [name for name in names(found) if name.startswith("runtime")] == ["runtime.kind"]
    assert "weights_sha256" in names(found)


@pytest.mark.parametrize(
    ("old", "new", "needs"),
    [(("a",), ("a", "b"), "postprocess"), (("a", "b"), ("b",), "postprocess"), (("a", "b"), ("a",), "view")],
)
def test_layers_are_computed_again_unless_the_topmost_are_left_out(
    old: tuple[str, ...], new: tuple[str, ...], needs: str
) -> None:
    found = changes(side(config(BASE), layers=old), side(config(BASE), layers=new))
    assert [(c.field, c.old, c.new, c.needs) for c in found] == [("layers", old, new, needs)]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ({"default": 0.3}, {"default": 0.4}, {"thresholds.default": (0.3, 0.4)}),
        ({}, {"per_label": {"fox": 0.9}}, {"thresholds.per_label.fox": (0.25, 0.9)}),
        ({"per_label": {"fox": 0.9}}, {}, {"thresholds.per_label.fox": (0.9, 0.25)}),
        ({"per_label": {"fox": 0.25}}, {}, {}),
    ],
)
def test_thresholds_are_compared_as_they_are_shown(
    old: dict[str, Any], new: dict[str, Any], wanted: dict[str, tuple[float, float]]
) -> None:
    sides = [side(config(BASE), shown=Thresholds.model_validate(one)) for one in (old, new)]
    found = changes(*sides)
    assert {c.field: (c.old, c.new) for c in found} == wanted
    assert {c.needs for c in found} <= {"view"}


def test_what_the_model_proposes_and_the_view_does_not_show_is_no_change() -> None:
    shown = Thresholds(default=0.7)
    old = side(config(BASE, thresholds__default=0.1), shown=shown)
    assert changes(old, side(config(BASE, thresholds__default=0.7))) == []


def test_a_threshold_below_the_floor_shows_no_more_and_says_so() -> None:
    low = config(BASE, score_floor=0.2, thresholds__default=0.1)
    high = config(BASE, score_floor=0.2, thresholds__default=0.2)
    (found,) = changes(side(config(BASE, score_floor=0.2)), side(low))
    assert "score_floor 0.2" in found.why
    (found,) = changes(side(config(BASE, score_floor=0.2)), side(high))
    assert "score_floor 0.2" not in found.why


def test_the_numerics_version_is_found_by_the_key() -> None:
    base = config(BASE)
    for version in (1, NUMERICS_VERSION, NUMERICS_VERSION + 3):
        assert numerics_of(base, ONE, inference_key(base, ONE, version)) == version
    assert numerics_of(base, OTHER, inference_key(base, ONE)) is None
    assert inference_key(base, ONE) == inference_key(base, ONE, NUMERICS_VERSION)
