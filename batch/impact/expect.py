"""From a sample to the archive: how much would change if every image were seen.

Impact of a sample, its size, the archive's --extrapolate--> expected numbers, each with a 95 % interval

Images: the share in the sample, with Wilson's interval for a fraction. Detections: the images concerned, times
the mean number in such an image of the sample. What the sample holds is certain: no interval goes below
what was found in it, nor above what it leaves room for.
"""

from __future__ import annotations

import math

from batch.impact.facts import Impact
from model_store.config import Frozen
from model_store.errors import BadRequest

Z_95 = 1.959964
"""The standard normal distribution has 95 % within so many deviations."""


class Expected(Frozen):
    found: int
    expected: float
    low: float
    high: float


class Extrapolation(Frozen):
    """In the whole population; `found` is the number in the sample."""

    sampled: int
    population: int
    changed_images: Expected
    emptied_images: Expected
    filled_images: Expected
    lost: Expected
    new: Expected
    relabelled: Expected


def wilson(found: int, of: int) -> tuple[float, float]:
    """95 % interval of the fraction `found` of `of` (E. B. Wilson, JASA 22, 1927, p. 209)."""
    share, z2 = found / of, Z_95**2
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z_95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, centre - half), min(1.0, centre + half)


def extrapolate(impact: Impact, sampled: int, population: int) -> Extrapolation:
    """`sampled` images of `population` were asked for, those that failed included (they count as unchanged).

    Raises BadRequest when the numbers contradict each other.
    """
    if not impact.images.compared <= sampled <= population or sampled < 1:
        raise BadRequest(
            f"a sample of {sampled} images of {population} with {impact.images.compared} compared: "
            "the sample is at least what was compared and at most the population"
        )
    images, boxes = impact.images, impact.boxes

    def expect(found: int, concerned: int) -> Expected:
        return _expected(found, concerned, sampled, population)

    return Extrapolation(
        sampled=sampled,
        population=population,
        changed_images=expect(images.changed, images.changed),
        emptied_images=expect(images.emptied, images.emptied),
        filled_images=expect(images.filled, images.filled),
        lost=expect(boxes.lost, images.with_lost),
        new=expect(boxes.new, images.with_new),
        relabelled=expect(boxes.relabelled_from, images.with_relabelled),
    )


def _expected(found: int, concerned: int, sampled: int, population: int) -> Expected:
    each = found / concerned if concerned else 1.0
    low, high = (share * population for share in wilson(concerned, sampled))
    low = max(low, concerned)
    high = min(high, population - (sampled - concerned))
    return Expected(
        found=found,
        expected=round(found / sampled * population, 1),
        low=round(low * each, 1),
        high=round(high * each, 1),
    )
