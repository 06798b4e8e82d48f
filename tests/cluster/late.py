"""Which versions an answer may be of, by when it was asked, when it came, and what was promoted when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promotion:
    """One that was done, in seconds of one clock: when it was asked for, and when that returned."""

    version: str
    began_s: float
    returned_s: float


def may_answer(asked_s: float, answered_s: float, promotions: Sequence[Promotion]) -> set[str]:
    """The version that was promoted last before the question, and all whose promotion was under way between
    it and the answer; an answer of any other is late. `promotions` follow each other, and the first of them
    returned before anything was asked.
    """
    last = [one for one in promotions if one.returned_s <= asked_s][-1]
    under_way = {one.version for one in promotions if one.returned_s > asked_s and one.began_s <= answered_s}
    return {last.version} | under_way
