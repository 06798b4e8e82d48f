"""Rank-1 and mean average precision of a ranking by cosine, in plain Python, and the mean cosines."""

from __future__ import annotations

from collections.abc import Sequence


def ranked(vectors: Sequence[Sequence[float]], who: Sequence[object], where: Sequence[object]) -> dict[str, float]:
    """Rank, for each crop, the crops of other cameras; average over crops with a right answer among those."""
    within, between, firsts, precisions = [], [], [], []
    for query, vector in enumerate(vectors):
        ranking = []
        for other, candidate in enumerate(vectors):
            if where[other] != where[query]:
                cosine = sum(a * b for a, b in zip(vector, candidate, strict=True))
                ranking.append((cosine, who[other] == who[query]))
                (within if who[other] == who[query] else between).append(cosine)
        ranking.sort(key=lambda pair: pair[0], reverse=True)
        hits, shares = 0, []
        for place, (_, right) in enumerate(ranking, 1):
            if right:
                hits += 1
                shares.append(hits / place)
        if shares:
            firsts.append(1.0 if ranking[0][1] else 0.0)
            precisions.append(sum(shares) / hits)
    return {
        "within": sum(within) / len(within),
        "between": sum(between) / len(between),
        "queries": len(firsts),
        "rank1": sum(firsts) / len(firsts),
        "mean_average_precision": sum(precisions) / len(precisions),
    }
