"""Scores below the threshold of their label are not shown; those only just below are a group of their own, "almost".

score and threshold as float32 --score >= threshold--> shown; [threshold - almost, threshold) --> almost; else below

Both numbers are float32, as in `model_store/shown.py`: a threshold of 0.7 shows the score that a network says
when it means 0.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from batch.filters.contract import NO_RANK, Filter, FilterConfig, Rows, Said
from batch.filters.reasons import compared

ALMOST = "almost"
Share = Annotated[float, Field(ge=0, le=1)]


def _sorted(per_label: dict[str, float]) -> dict[str, float]:
    return dict(sorted(per_label.items()))


class ScoreThresholdConfig(FilterConfig):
    kind: Literal["score-threshold"] = "score-threshold"
    min_score: Share = Field(
        default=0.25,
        description="score, 0 to 1: a detection is shown from this on (inclusive), unless its label has its own",
    )
    per_label: Annotated[dict[str, Share], AfterValidator(_sorted)] = Field(
        default={}, description="score, 0 to 1, by label: instead of min_score"
    )
    almost: Share = Field(
        default=0.05,
        description="score, 0 to 1: how far below its threshold (inclusive) a detection is almost shown: it is "
        f"suppressed too, with the group '{ALMOST}', so that a reviewer can look through these; 0: no such band",
    )


def invalid(config: ScoreThresholdConfig, rows: Rows) -> NDArray[np.bool_]:
    """(n,): detections without a score."""
    return (rows.rank != NO_RANK) & np.isnan(rows.score)


def say(config: ScoreThresholdConfig, rows: Rows) -> Iterator[Said]:
    """One `suppress` for each below. Reason: "score 0.31 < 0.4", or "almost: score 0.38 < 0.4"."""
    own = _thresholds(config, rows.label)
    band = (own - config.almost).astype(np.float32)
    below = (rows.rank != NO_RANK) & (rows.score < own.astype(np.float32))
    almost = rows.score >= band
    for i in np.flatnonzero(below).tolist():
        reason = compared("score", float(rows.score[i]), "<", float(own[i]))
        at = (rows.media_sha256[i], int(rows.rank[i]), "suppress")
        if almost[i]:
            yield Said(*at, f"almost: {reason}", group_id=ALMOST)
        else:
            yield Said(*at, reason)


def _thresholds(config: ScoreThresholdConfig, labels: NDArray[np.object_]) -> NDArray[np.float64]:
    """(n,): as configured, not yet float32."""
    per_label, other = config.per_label, config.min_score
    return np.fromiter((per_label.get(label, other) for label in labels), np.float64, len(labels))


FILTER = Filter(config=ScoreThresholdConfig, apply=say, context="image", order=30, invalid=invalid)
