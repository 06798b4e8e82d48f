"""Extrapolation of a sample: unbiased, and its intervals hold the truth as often as they claim."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from batch.planning.sample import allocate
from batch.publishing.impact.extrapolate import EstimatedCount, Extrapolation, SampleCount, expect, extrapolate, wilson
from model_store.errors import BadRequest


@pytest.mark.parametrize(
    ("found", "of", "want"),
    [
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (81, 263, (0.2553, 0.3662)),  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilsons_interval(found: int, of: int, want: tuple[float, float]) -> None:
    assert wilson(found, of) == pytest.approx(want, abs=5e-5)


FIGURES = ("compared_images", "changed_images", "emptied_images", "filled_images", "lost", "new", "relabelled")
ARCHIVES, SAMPLE = 1_000, 500
Numbers = npt.NDArray[np.int64]


def of_sample(sampled: int, population: int, **figures: tuple[int, int, int]) -> Extrapolation:
    """All counts are 0 but these."""
    counts: Mapping[str, SampleCount] = {name: SampleCount(*figures.get(name, (0, 0, 0))) for name in FIGURES}
    return extrapolate(counts, sampled, population)


def test_numbers_of_the_archive_are_expected_in_proportion() -> None:
    found = of_sample(
        263, 26_300_000, compared_images=(200, 200, 200), changed_images=(81, 81, 81), lost=(81, 162, 324)
    )
    images = found.changed_images
    assert (images.found, images.expected) == (81, 8_100_000)
    assert found.compared_images.expected == 20_000_000
    assert (images.low / 26.3e6, images.high / 26.3e6) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert found.lost.expected == 16_200_000
    assert found.lost.low == pytest.approx(2 * images.low, rel=1e-6), "two in each such image"
    assert found.new.expected == 0
    assert found.new.high > 0, "none in a sample does not mean none at all"


def test_the_more_the_numbers_in_an_image_vary_the_wider_the_interval() -> None:
    even, uneven = (expect(SampleCount(20, 100, squares), 100, 1000) for squares in (500, 2000))
    assert even.expected == uneven.expected == 1000
    assert uneven.low < even.low
    assert uneven.high > even.high


def test_a_sample_of_everything_is_certain() -> None:
    found = of_sample(10, 10, compared_images=(10, 10, 10), changed_images=(3, 3, 3), new=(2, 5, 17))
    assert found.changed_images == EstimatedCount(found=3, expected=3, low=3, high=3)
    assert found.new == EstimatedCount(found=5, expected=5, low=5, high=5)


def test_what_was_found_is_there_at_least_and_no_more_than_there_is_room_for() -> None:
    found = of_sample(4, 5, compared_images=(4, 4, 4), changed_images=(4, 4, 4))
    assert (found.changed_images.low, found.changed_images.high) == (4, 5)


@pytest.mark.parametrize(("sampled", "population"), [(0, 10), (3, 10), (11, 10)])
def test_impossible_numbers_are_refused(sampled: int, population: int) -> None:
    compared = 4 if sampled else 0
    with pytest.raises(BadRequest, match="invalid sample of"):
        of_sample(sampled, population, compared_images=(compared, compared, compared))


def busy_change(sizes: Numbers) -> npt.NDArray[np.float64]:
    """Share of the images of each camera that change: of the largest tenth of the cameras 0.6, of the others 0.05."""
    return np.where(sizes >= np.quantile(sizes, 0.9), 0.6, 0.05)


SHARES = {
    "busy cameras": busy_change,
    "quiet cameras": lambda sizes: 0.65 - busy_change(sizes),
    "all alike": lambda sizes: np.full(len(sizes), 0.2),
}


def archive(cameras: int, shares: str, lot: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Images of each stratum and how many of them change, in the order of the product: day, then night."""
    sizes = np.maximum(1, lot.lognormal(4, 1.2, cameras)).astype(np.int64)
    by_day = lot.binomial(sizes, 0.6)
    strata = np.concatenate([by_day, sizes - by_day])
    return strata, lot.binomial(strata, np.tile(SHARES[shares](sizes), 2))


def one_busy_camera(lot: np.random.Generator) -> tuple[Numbers, Numbers]:
    """901 of 1,000 images are of one camera, and change; 99 cameras have one each, and nothing changes."""
    sizes = lot.permutation(np.array([901] + [1] * 99))
    return sizes, np.where(sizes > 1, sizes, 0)


def require_honest(made: list[tuple[Numbers, Numbers]], images: int, lot: np.random.Generator) -> None:
    """In one sample of each archive, at least 93 % of the intervals hold the truth, of images and of detections in
    them, and the mean error is within three of its standard errors of 0.
    """
    held, errors = np.zeros(2), []
    for strata, changed in made:
        population, truth = int(strata.sum()), int(changed.sum())
        quotas = allocate(strata.tolist(), images, lot.random())
        sampled, found = (int(quotas.sum()), int(lot.hypergeometric(changed, strata - changed, quotas).sum()))
        seen = lot.geometric(0.5, found)  # detections in each such image: 2 in the mean
        unseen = (truth - found) + int(lot.negative_binomial(truth - found, 0.5) if truth > found else 0)
        counts = (
            (SampleCount(found, found, found), truth),
            (SampleCount(found, int(seen.sum()), int((seen**2).sum())), int(seen.sum()) + unseen),
        )
        figures = [(expect(count, sampled, population), true) for count, true in counts]
        held += [figure.low <= true <= figure.high for figure, true in figures]
        errors.append([(figure.expected - true) / population for figure, true in figures])
    assert (held / len(made) >= 0.93).all(), held
    standard_error = np.std(errors, axis=0) / np.sqrt(len(made))
    assert (np.abs(np.mean(errors, axis=0)) <= 3 * standard_error).all()


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("cameras", [20, 100, 200, 300, 1000])
def test_intervals_of_a_sample_hold_the_truth_and_its_mean_is_it(cameras: int, shares: str) -> None:
    lot = np.random.default_rng([cameras, *shares.encode()])
    made = [archive(cameras, shares, lot) for _ in range(ARCHIVES)]
    require_honest(made, SAMPLE, lot)


@pytest.mark.parametrize("images", [20, 100, 300])
def test_a_camera_with_nearly_all_images_has_nearly_all_of_the_sample(images: int) -> None:
    lot = np.random.default_rng(images)
    require_honest([one_busy_camera(lot) for _ in range(ARCHIVES)], images, lot)
