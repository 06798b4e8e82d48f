"""What is shown of what was found: the one rule of all that shows detections.

least_scores(config, min_score) -> (labels,) --shown(detections, least)--> those at or above it

A score is a float32, and so is what it is compared with: a threshold of 0.7 shows the score that a network
says when it means 0.7, which is a little less than 0.7 as Python has it.
"""

from __future__ import annotations

import numpy as np

from model_store.config import ModelConfig
from model_store.detections import Detections, FloatArray


def least_scores(config: ModelConfig, min_score: float | None = None) -> FloatArray:
    """(labels,) float32: from which score each class is shown, by the model's own thresholds unless given."""
    least = [config.threshold(label) if min_score is None else min_score for label in config.labels]
    return np.array(least, np.float32)


def shown(found: Detections, least: FloatArray) -> Detections:
    """Those whose score is at or above that of their class."""
    return found.select(found.scores >= least[found.class_ids])
