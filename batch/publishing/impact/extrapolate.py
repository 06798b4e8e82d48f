"""Extrapolate the changes in a sample to the whole archive.

counts of a sample, its size, the size of the archive --extrapolate--> expected numbers, each with a 95 % interval

Every image has the same chance to be in the sample (`batch/planning/sample.py`). A number of the archive is
therefore the number of the sample times population / sampled, without weights. Only images that can be compared count:
they have results on both sides and did not fail; `compared_images` is their number. The sample itself is certain: no
interval of images goes below the number in the sample, nor above the number that it leaves possible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from model_store.errors import BadRequest
from model_store.frozen import Frozen

Z_95 = 1.959964
"""Standard deviations around the mean that contain 95 % of a normal distribution."""
_COUNTS = """
    select (select count(*) from images where compared) as compared_images, count(*) filter (changed) as changed_images,
        count(*) filter (emptied) as emptied_images, count(*) filter (filled) as filled_images,
        {box_counts}
    from tallies
"""
_BOX_COUNTS = "[count(*) filter ({name} > 0), coalesce(sum({name}), 0), coalesce(sum({name} * {name}), 0)] as {name}"


@dataclass(frozen=True, slots=True)
class SampleCount:
    """A count over images: the number of `images` with at least one, the `total`, and the sum of its `squares`."""

    images: int
    total: int
    squares: int


class EstimatedCount(Frozen):
    found: int
    expected: float
    low: float
    high: float


class Extrapolation(Frozen):
    """Expected numbers in the whole population; `found` is the number in the sample."""

    sampled: int
    population: int
    compared_images: EstimatedCount
    changed_images: EstimatedCount
    emptied_images: EstimatedCount
    filled_images: EstimatedCount
    lost: EstimatedCount
    new: EstimatedCount
    relabelled: EstimatedCount


def sample_counts(sql: duckdb.DuckDBPyConnection) -> dict[str, SampleCount]:
    """Return the figures of an Extrapolation, by name, from the relations of a comparison (`compare.compared`)."""
    kinds = ", ".join(_BOX_COUNTS.format(name=name) for name in ("lost", "new", "relabelled"))
    relation = sql.sql(_COUNTS.format(box_counts=kinds))
    counts = dict(zip(relation.columns, relation.fetchall()[0], strict=True))
    return {name: SampleCount(*map(int, n if isinstance(n, list) else [n] * 3)) for name, n in counts.items()}


def wilson(found: float, of: float) -> tuple[float, float]:
    """Return the 95 % interval of the fraction `found` / `of` (E. B. Wilson, JASA 22, 1927, p. 209)."""
    share, z2 = found / of, Z_95**2
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z_95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, centre - half), min(1.0, centre + half)


def extrapolate(counts: Mapping[str, SampleCount], sampled: int, population: int) -> Extrapolation:
    """Extrapolate counts of `sampled` images, including those that cannot be compared, to `population` images.

    Raises BadRequest if the numbers contradict each other.
    """
    compared = counts["compared_images"].images
    if not compared <= sampled <= population or sampled < 1:
        raise BadRequest(
            f"invalid sample of {sampled} images of {population} with {compared} compared: "
            "a sample has at least 1 image, at least the compared ones and at most the population"
        )
    figures = {name: expect(count, sampled, population) for name, count in counts.items()}
    return Extrapolation(sampled=sampled, population=population, **figures)


def expect(count: SampleCount, sampled: int, population: int) -> EstimatedCount:
    """Return the number in the population, with its 95 % interval.

    Images: Wilson's interval for a fraction, with n (N - 1) / (N - n) in place of n for the finite population, which
    gives the variance of a sample without replacement (Cochran 1977, section 3.2). Proportional strata can only
    narrow it. Detections: the fraction of images times the mean number in such an image. The two intervals are
    combined by the variance on each side (G. Y. Zou and A. Donner, Statistics in Medicine 27, 2008, p. 1693).
    """
    images, rest = count.images, population - sampled
    share = low = high = images / sampled
    if rest:
        effective = sampled * (population - 1) / rest
        low, high = wilson(share * effective, effective)
    mean, factor = _mean(count, rest / population)
    below = math.hypot(mean * (share - low), share * mean * (1 - 1 / factor))
    above = math.hypot(mean * (high - share), share * mean * (factor - 1))
    possible = population - (sampled - images) if count.total == images else math.inf
    return EstimatedCount(
        found=count.total,
        expected=round(share * mean * population, 1),
        low=round(max((share * mean - below) * population, count.total), 1),
        high=round(min((share * mean + above) * population, possible), 1),
    )


def _mean(count: SampleCount, left: float) -> tuple[float, float]:
    """Return the mean number in images that have any, and the factor to both ends of its 95 % interval.

    The interval is symmetric on a logarithmic scale, because such numbers are skewed. It uses Student's distribution
    with its first term beyond the normal one (M. Abramowitz and I. A. Stegun, 26.7.5). `left` is the fraction of the
    population that was not sampled.
    """
    images = count.images
    if images < 2:
        return (float(count.total) if images else 1.0), 1.0
    mean = count.total / images
    variance = max(0.0, count.squares - images * mean * mean) / (images - 1)
    student = Z_95 + (Z_95**3 + Z_95) / (4 * (images - 1))
    return mean, math.exp(student * math.sqrt(variance / images * left) / mean)
