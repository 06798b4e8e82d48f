"""What a shadow's agreement counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.load import load_detector
from model_store.names import version_id
from model_store.store import ModelStore
from serve.models.shadow import MAX_WAITING, Agreement, Shadows, compare
from tests.fixtures_local import MODELS
from tests.model_store.test_detections import detections

LABELS = ("deer", "fox")
A = (0.0, 0.0, 10.0, 10.0)
NEAR_A = (0.0, 0.0, 10.0, 9.0)
HALF_A = (0.0, 0.0, 10.0, 5.0)
FAR = (50.0, 50.0, 60.0, 60.0)


@pytest.mark.parametrize(
    ("active", "candidate", "wanted"),
    [
        ([], [], Agreement(images=1)),
        ([(0.9, 0, A)], [], Agreement(1, 0, 0, 1, 0)),
        ([], [(0.9, 0, A)], Agreement(1, 0, 0, 0, 1)),
        ([(0.5, 0, A)], [(0.75, 0, NEAR_A)], Agreement(1, 1, 0, 0, 0, 0.25, 0.25)),
        ([(0.75, 0, A)], [(0.5, 1, HALF_A)], Agreement(1, 1, 1, 0, 0, -0.25, 0.25)),
        ([(0.5, 0, A)], [(0.5, 0, FAR)], Agreement(1, 0, 0, 1, 1)),
        ([(0.5, 0, A), (0.5, 0, FAR)], [(0.5, 0, HALF_A), (0.5, 0, NEAR_A), (0.5, 0, FAR)], Agreement(1, 2, 0, 0, 1)),
    ],
)
def test_one_image(active: list[Any], candidate: list[Any], wanted: Agreement) -> None:
    found = compare(detections(active), detections(candidate), LABELS, LABELS)
    assert found == wanted


def test_labels_are_compared_by_name_since_versions_may_number_them_differently() -> None:
    one, two = detections([(0.5, 0, A)]), detections([(0.5, 1, A)])
    assert compare(one, two, LABELS, ("fox", "deer")).label_flips == 0
    assert compare(one, one, LABELS, ("fox", "deer")).label_flips == 1


def test_sums() -> None:
    assert Agreement(1, 2, 1, 0, 3, 0.5, 0.5).plus(Agreement(1, 1, 0, 1, 0, -0.5, 0.5)) == Agreement(
        2, 3, 1, 1, 3, 0.0, 1.0
    )


@pytest.fixture
def loaded() -> LoadedDetector:
    return load_detector(ModelStore(str(MODELS)), version_id("motion", "1"))


async def test_shadows_that_wait_are_dropped_and_counted_and_failures_hurt_nobody(loaded: LoadedDetector) -> None:
    gate = asyncio.Event()

    async def detect(body: bytes, _: Any) -> Detections:
        await gate.wait()
        if body == b"bad":
            raise RuntimeError("it cannot")
        return Detections.empty()

    shadows = Shadows(detect)
    for body in [b"bad", *[b"good"] * (MAX_WAITING + 2)]:
        shadows.start(body, loaded, Detections.empty(), loaded)
    gate.set()
    while shadows._waiting:
        await asyncio.sleep(0.01)
    (counts,) = shadows.tallies.values()
    assert (counts.dropped, counts.failed) == (3, 1)
    assert counts.agreement == Agreement(images=MAX_WAITING - 1)
