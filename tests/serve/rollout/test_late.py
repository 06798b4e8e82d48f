"""The check of the load test on a cluster finds an answer of a version that was replaced before the request."""

from __future__ import annotations

import pytest

from tests.cluster.late import Promotion, may_answer

PROMOTIONS = [Promotion("1", 0, 0), Promotion("2", 10, 11), Promotion("3", 20, 21)]


@pytest.mark.parametrize(
    ("asked_s", "answered_s", "versions"),
    [(1, 9.9, {"1"}), (9, 10.5, {"1", "2"}), (10.5, 12, {"1", "2"}), (11, 12, {"2"}), (9, 30, {"1", "2", "3"})],
)
def test_only_what_was_promoted_last_or_meanwhile_may_answer(
    asked_s: float, answered_s: float, versions: set[str]
) -> None:
    assert may_answer(asked_s, answered_s, PROMOTIONS) == versions


def test_a_version_may_answer_again_from_when_its_promotion_began() -> None:
    promotions = [*PROMOTIONS, Promotion("2", 30, 31)]
    assert may_answer(22, 29, promotions) == {"3"}
    assert may_answer(22, 30.5, promotions) == {"2", "3"}
    assert may_answer(31, 32, promotions) == {"2"}
