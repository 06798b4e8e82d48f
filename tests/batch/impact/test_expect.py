"""Extrapolation of a sample."""

from __future__ import annotations

import pytest

from batch.impact.expect import extrapolate, wilson
from model_store.errors import BadRequest
from tests.batch.impact.test_gates import impact


@pytest.mark.parametrize(
    ("found", "of", "want"),
    [
        (0, 10, (0.0, 0.2775)),
        (5, 10, (0.2366, 0.7634)),
        (10, 10, (0.7225, 1.0)),
        (81, 263, (0.2553, 0.3662)),  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I
        (15, 148, (0.0624, 0.1605)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilsons_interval(found: int, of: int, want: tuple[float, float]) -> None:
    assert wilson(found, of) == pytest.approx(want, abs=5e-5)


def test_numbers_of_the_archive_are_expected_in_proportion() -> None:
    sample = impact(compared=263, changed=81, with_lost=81, boxes_lost=162)
    found = extrapolate(sample, 263, 26_300)
    images = found.changed_images
    assert (images.found, images.expected) == (81, 8100)
    assert (images.low, images.high) == pytest.approx((0.2553 * 26_300, 0.3662 * 26_300), rel=2e-4)
    assert found.lost.expected == 16_200
    assert found.lost.low == pytest.approx(2 * images.low, abs=0.2), "two in each such image"
    assert found.new.expected == 0
    assert found.new.high > 0, "none in a sample does not mean none at all"


def test_a_sample_of_everything_is_certain() -> None:
    found = extrapolate(impact(compared=10, changed=3, with_new=2, new=5), 10, 10)
    assert found.changed_images.model_dump() == {"found": 3, "expected": 3, "low": 3, "high": 3}
    assert (found.new.expected, found.new.low, found.new.high) == (5, 5, 5)


def test_what_was_found_is_there_at_least() -> None:
    found = extrapolate(impact(compared=4, changed=4), 4, 5)
    assert (found.changed_images.low, found.changed_images.high) == (4, 5)


@pytest.mark.parametrize(("sampled", "population"), [(0, 10), (3, 10), (11, 10)])
def test_impossible_numbers_are_refused(sampled: int, population: int) -> None:
    with pytest.raises(BadRequest, match="the sample is at least what was compared"):
        extrapolate(impact(compared=4 if sampled else 0), sampled, population)
