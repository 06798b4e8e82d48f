"""From a sample to the archive: how much would change if every image were seen.

Counts of a sample, its size, the archive's --extrapolate--> expected numbers, each with a 95 % interval

Every image has the same chance to be in the sample (`batch/sample.py`), so a number of the archive is that of the
sample times population / sampled, without weights. It is a number of the images that can be compared: those without
an old result and failed ones are in none of them, and `compared_images` says how many the others are.
What the sample holds is certain: no interval of images goes below what was found in it, nor above what it leaves
room for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from model_store.config import Frozen
from model_store.errors import BadRequest

Z_95 = 1.959964
"""The standard normal distribution has 95 % within so many deviations."""
_COUNTS = """
    select count(*) filter (changed), count(*) filter (emptied), count(*) filter (filled),
        count(*) filter (lost > 0), sum(lost), sum(lost * lost),
        count(*) filter (new > 0), sum(new), sum(new * new),
        count(*) filter (relabelled > 0), sum(relabelled), sum(relabelled * relabelled),
        (select count(*) from images where compared)
    from tallies
"""


@dataclass(frozen=True, slots=True)
class SampleCount:
    """Something that was counted in the images of a sample.

    `images` have at least one, `total` is their sum and `squares` the sum of the squares of their numbers.
    """

    images: int
    total: int
    squares: int


class Expected(Frozen):
    found: int
    expected: float
    low: float
    high: float


class Extrapolation(Frozen):
    """In the whole population; `found` is the number in the sample."""

    sampled: int
    population: int
    compared_images: Expected
    changed_images: Expected
    emptied_images: Expected
    filled_images: Expected
    lost: Expected
    new: Expected
    relabelled: Expected


def sample_counts(sql: duckdb.DuckDBPyConnection) -> dict[str, SampleCount]:
    """Return the figures of an Extrapolation, by name, from the relations of a comparison (`compare.compared`)."""
    *row, compared = (int(n or 0) for n in sql.sql(_COUNTS).fetchall()[0])
    images = {"compared_images": compared}
    images |= zip(("changed_images", "emptied_images", "filled_images"), row[:3], strict=True)
    boxes = zip(("lost", "new", "relabelled"), (row[3:6], row[6:9], row[9:12]), strict=True)
    return {name: SampleCount(n, n, n) for name, n in images.items()} | {
        name: SampleCount(*numbers) for name, numbers in boxes
    }


def wilson(found: float, of: float) -> tuple[float, float]:
    """95 % interval of the fraction `found` of `of` (E. B. Wilson, JASA 22, 1927, p. 209)."""
    share, z2 = found / of, Z_95**2
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z_95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, centre - half), min(1.0, centre + half)


def extrapolate(counts: Mapping[str, SampleCount], sampled: int, population: int) -> Extrapolation:
    """`sampled` images of `population` were asked for, those that cannot be compared included.

    Raises BadRequest when the numbers contradict each other.
    """
    compared = counts["compared_images"].images
    if not compared <= sampled <= population or sampled < 1:
        raise BadRequest(
            f"a sample of {sampled} images of {population} with {compared} compared: "
            "the sample is at least what was compared and at most the population"
        )
    figures = {name: expect(count, sampled, population) for name, count in counts.items()}
    return Extrapolation(sampled=sampled, population=population, **figures)


def expect(count: SampleCount, sampled: int, population: int) -> Expected:
    """Return the number in the population, with its 95 % interval.

    Images: Wilson's interval for a fraction, with n (N - 1) / (N - n) in place of n for the finite population, which
    gives the variance of a sample without replacement (Cochran 1977, section 3.2). Strata in proportion can only
    narrow the spread that it allows for. Detections: the fraction of images times the mean number in such an image,
    whose intervals are put together by the variance that each shows on its side (G. Y. Zou and A. Donner,
    Statistics in Medicine 27, 2008, p. 1693).
    """
    images, rest = count.images, population - sampled
    share = low = high = images / sampled
    if rest:
        effective = sampled * (population - 1) / rest
        low, high = wilson(share * effective, effective)
    mean, factor = _mean(count, rest / population)
    below = math.hypot(mean * (share - low), share * mean * (1 - 1 / factor))
    above = math.hypot(mean * (high - share), share * mean * (factor - 1))
    most = population - (sampled - images) if count.total == images else math.inf
    return Expected(
        found=count.total,
        expected=round(share * mean * population, 1),
        low=round(max((share * mean - below) * population, count.total), 1),
        high=round(min((share * mean + above) * population, most), 1),
    )


def _mean(count: SampleCount, left: float) -> tuple[float, float]:
    """Return the mean number in an image that has any, and the factor to both ends of its 95 % interval.

    On the scale of logarithms, because such numbers are skewed, with Student's distribution (its first term beyond
    the normal one: M. Abramowitz and I. A. Stegun, 26.7.5). `left` is the fraction of the population not sampled.
    """
    images = count.images
    if images < 2:
        return (float(count.total) if images else 1.0), 1.0
    mean = count.total / images
    variance = max(0.0, count.squares - images * mean * mean) / (images - 1)
    student = Z_95 + (Z_95**3 + Z_95) / (4 * (images - 1))
    return mean, math.exp(student * math.sqrt(variance / images * left) / mean)
