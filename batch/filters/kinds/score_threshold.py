"""Suppress detections below the score threshold of their label; those just below it form the group "almost".

score and threshold as float32 --score >= threshold--> shown; [threshold - almost, threshold) --> almost; else below

Both numbers are float32, as in `model_store/transform/thresholds.py`, so that a threshold of 0.7 shows a float32 score
of 0.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from batch.filters.contract import Filter, FilterAction, FilterConfig, Rows
from batch.filters.support.names import by_key
from batch.filters.support.reasons import compared

ALMOST = "almost"
Share = Annotated[float, Field(ge=0, le=1)]


class ScoreThresholdConfig(FilterConfig):
    kind: Literal["score-threshold"] = "score-threshold"
    min_score: Share = 0.25
    """score, 0 to 1: minimum for a detection to be shown (inclusive), unless per_label has its label"""
    per_label: Annotated[dict[str, Share], AfterValidator(by_key)] = {}
    """score, 0 to 1, by label: replaces min_score for this label"""
    almost: Share = Field(
        0.05,
        description="score, 0 to 1: width of the band below the threshold (inclusive). Detections in it are also "
        "suppressed, with the group 'almost', so that people can review them; 0: no band",
    )


def actions(config: ScoreThresholdConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield `suppress` for each detection below. Reason: "score 0.31 < 0.4", or "almost: score 0.38 < 0.4"."""
    threshold = _thresholds(config, rows.label)
    band = (threshold - config.almost).astype(np.float32)
    below = rows.score < threshold.astype(np.float32)
    almost = rows.score >= band
    for i in np.flatnonzero(below).tolist():
        reason = compared("score", float(rows.score[i]), "<", float(threshold[i]))
        group = ALMOST if almost[i] else None
        yield FilterAction(*rows.target(i), "suppress", f"{ALMOST}: {reason}" if group else reason, group_id=group)


def _thresholds(config: ScoreThresholdConfig, labels: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return the configured threshold of each label, (n,) float64."""
    per_label, default = config.per_label, config.min_score
    return np.fromiter((per_label.get(label, default) for label in labels), np.float64, len(labels))


FILTER = Filter(
    config=ScoreThresholdConfig, apply=actions, context="image", order=30, invalid=lambda _, rows: np.isnan(rows.score)
)
