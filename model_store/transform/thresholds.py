"""Select the detections to show in answers, metrics and shadows; `archive/views/views.sql` has the rule for queries.

least_scores(config, min_score) -> (labels,) --shown(detections, least)--> those at or above it

Scores and thresholds are compared as float32: a threshold of 0.7 shows a float32 score of 0.7, which is slightly
less than 0.7 in float64.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model_store.config import ModelConfig
from model_store.detections import Detections, FloatArray


def thresholds_in_words(default: float, per_label: Mapping[str, float]) -> str:
    """Return thresholds as text: `0.25, fox 0.4`."""
    return ", ".join([f"{default:g}", *(f"{label} {score:g}" for label, score in sorted(per_label.items()))])


def least_scores(config: ModelConfig, min_score: float | None = None) -> FloatArray:
    """Return the threshold of each class, (labels,) float32: `min_score`, or the model's thresholds."""
    if min_score is not None:
        return np.full(len(config.labels), min_score, np.float32)
    return np.array(config.class_thresholds, np.float32)


def shown(found: Detections, least: FloatArray) -> Detections:
    """Return the detections with a score at or above the threshold of their class."""
    return found.select(found.scores >= least[found.class_ids])
