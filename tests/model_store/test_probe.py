"""The golden probe passes for a correct model and fails for each subtle error."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from model_store.detector import LoadedDetector
from model_store.errors import ModelRefused, ProbeFailed
from model_store.load import load_detector
from model_store.names import parse_version
from model_store.probe import EXPECTED, ProbeDetection, Tolerance, check_probe, match, record_probe
from model_store.store import ModelStore
from tests.shared_data import MODELS, photo

Files = dict[str, bytes]
Change = Callable[[LoadedDetector], LoadedDetector]


@cache
def detector() -> LoadedDetector:
    return load_detector(ModelStore(str(MODELS)), parse_version("ssdlite-coco@1"))


@cache
def files() -> Files:
    return record_probe(detector(), {"cat.jpg": photo("cat"), "panda.jpg": photo("panda")})


def with_config(section: str, **changes: Any) -> Change:
    def change(one: LoadedDetector) -> LoadedDetector:
        changed = getattr(one.config, section).model_copy(update=changes)
        return replace(one, config=one.config.model_copy(update={section: changed}))

    return change


def with_floor(floor: float) -> Change:
    return lambda one: replace(one, config=one.config.model_copy(update={"score_floor": floor}))


def with_labels(shift: int) -> Change:
    def change(one: LoadedDetector) -> LoadedDetector:
        labels = one.info.labels[shift:] + one.info.labels[:shift]
        return replace(one, info=replace(one.info, labels=labels))

    return change


def without(path: list[Any]) -> bytes:
    """Return expected.json without the field or row at `path`."""
    expected = json.loads(files()[EXPECTED])
    inside: Any = expected
    for step in path[:-1]:
        inside = inside[step]
    del inside[path[-1]]
    return json.dumps(expected).encode()


def test_a_sound_model_passes() -> None:
    check_probe(detector(), files())
    expected = json.loads(files()[EXPECTED])["images"]
    assert expected.keys() == {"cat.jpg", "panda.jpg"}
    assert expected["cat.jpg"][0]["label"] == "cat"


@pytest.mark.parametrize("name", ["ssdlite-coco@1", "motion@1"])
def test_the_shipped_models_reproduce_their_own_probes(name: str) -> None:
    store = ModelStore(str(MODELS))
    one = load_detector(store, parse_version(name))
    described = store.describe(one.info.id)
    recorded = {name: store.read_file(described, name) for name in described.digests}
    assert len(json.loads(recorded[EXPECTED])["images"]) > 0
    check_probe(one, recorded)


@pytest.mark.parametrize(
    "change",
    [
        with_labels(1),
        with_config("preprocess", channel_order="BGR"),
        with_config("preprocess", resize="letterbox"),
        with_config("preprocess", divide_by=128.0),
        with_config("preprocess", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        with_config("nms", kind="none"),
        with_config("nms", max_detections=1),
        with_floor(0.5),
        with_floor(0.005),
    ],
    ids=["labels", "BGR", "letterbox", "divisor", "mean", "nms", "cut", "floor up", "floor down"],
)
def test_a_model_that_is_subtly_wrong_fails_and_says_how(change: Change) -> None:
    with pytest.raises(ProbeFailed, match=r"^ssdlite-coco@1 does not reproduce its probe") as failed:
        check_probe(change(detector()), files())
    assert "expected" in str(failed.value) or "unexpected" in str(failed.value)


@pytest.mark.parametrize("floor", [0.05, 0.055, 0.045])
def test_what_lies_near_the_floor_may_come_and_go(floor: float) -> None:
    check_probe(with_floor(floor)(detector()), files())


def test_a_box_without_area_or_inverted_is_the_same_as_itself() -> None:
    odd = [(9.0, 9.0, 9.0, 9.0), (9.0, 9.0, 5.0, 5.0), (9.0, 5.0, 5.0, 9.0)]
    rows = [ProbeDetection(label="cat", score=0.5, box_xyxy_px=box) for box in odd]
    for row in rows:
        assert match([row], [row], Tolerance()) == ([], [])
        assert match([row], [other for other in rows if other is not row], Tolerance()) == ([0], [0, 1])


def test_each_wanted_row_needs_its_own_match() -> None:
    expected = json.loads(files()[EXPECTED])
    expected["images"]["cat.jpg"].append(expected["images"]["cat.jpg"][0])
    with pytest.raises(ProbeFailed, match="expected cat"):
        check_probe(detector(), {**files(), EXPECTED: json.dumps(expected).encode()})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({EXPECTED: None}, "is missing; add the version with --probe"),
        ({EXPECTED: b""}, "is damaged"),
        ({EXPECTED: b"{}"}, "is damaged"),
        ({EXPECTED: without(["images", "cat.jpg", 0, "score"])}, "is damaged"),
        ({"probe/cat.jpg": None}, r"lists cat\.jpg, which is missing"),
    ],
    ids=["missing", "empty", "no images", "no score", "no picture"],
)
def test_an_unusable_probe_is_refused(change: dict[str, bytes | None], said: str) -> None:
    changed = {name: data for name, data in {**files(), **change}.items() if data is not None}
    with pytest.raises(ModelRefused, match=said):
        check_probe(detector(), changed)
