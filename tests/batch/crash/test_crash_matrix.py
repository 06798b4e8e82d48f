"""Whatever happens to a run: asked for again, it leaves the rows of an undisturbed one, each once."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.batch.crash import places
from tests.batch.crash.cases import cases
from tests.batch.crash.matrix import Case, Outcome, Place, expected_exits, play

SIGNALLED_BY_KERNEL = ("data", "log", "ack")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return places.local(tmp_path_factory.mktemp("crash"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str) -> Iterator[Place]:
    with places.s3(tmp_path_factory.mktemp("crash"), s3_endpoint) as place:
        yield place


@pytest.mark.parametrize("case", cases("local"), ids=lambda case: case.name)
def test_on_a_local_folder(case: Case, local: Place) -> None:
    faults = [driver.fault for step in case.steps for driver in step if driver.fault]
    if sys.platform != "linux" and any(f.point in SIGNALLED_BY_KERNEL for f in faults):
        pytest.skip("needs the file notifications of Linux")
    require(case, play(case, local))


@pytest.mark.parametrize("case", cases("s3"), ids=lambda case: case.name)
def test_on_s3(case: Case, s3: Place) -> None:
    require(case, play(case, s3))
    assert not s3.orders.exists(), "the fault never happened"


def require(case: Case, found: Outcome) -> None:
    assert found.exits == expected_exits(case), found.said
    assert (found.duplicates, found.lost, found.wrong) == (0, 0, 0), found
    assert found.states == list(case.states), found.said
    if case.redone is not None:
        assert 0 <= found.redone <= case.redone, found
    if case.work == "new" and case.redone is not None:
        assert found.redone == case.redone, found
    counts = found.counts
    done = counts["ok"] + counts["empty"] + counts["failed"] + counts["reused"]
    assert counts["requested"] == done
    assert case.work == "retry" or done == found.rows
