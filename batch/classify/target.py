"""The values that all rows of a classify run share.

(view's inference key, classifier, margin, classes) --target_of--> Target, with the classifier key
"""

from __future__ import annotations

from dataclasses import dataclass

from archive.annotations.classes import classes_digest
from model_store.inference_key import canonical_json, sha256_hex
from model_store.store import ModelVersion

CROPPING = 1
"""Version of cropping; raise it if the same box and margin give other pixels."""


@dataclass(frozen=True, slots=True)
class Target:
    """Keys of a classify run. `inference_key` is the detector's; equal classifier keys give equal rows."""

    inference_key: str
    classifier_key: str
    margin_frac: float
    names: tuple[str, ...]
    lineage: tuple[str, ...]

    @property
    def labels_digest(self) -> str:
        return classes_digest(self.names, self.lineage)

    @property
    def key(self) -> dict[str, str]:
        """Return the key columns that all rows of a run share."""
        return {"inference_key": self.inference_key, "classifier_key": self.classifier_key}


def target_of(inference_key: str, model: ModelVersion, margin_frac: float) -> Target:
    """Return the target of a run.

    The classifier key is a digest of the model's inference key, the margin, and the classes with their lineages, so
    that each logit has one meaning for a key.
    """
    names = model.info.labels
    lineage = model.classifier_config.lineage or ("",) * len(names)
    parts = {
        "inference_key": model.info.inference_key,
        "margin_frac": float(margin_frac),
        "cropping": CROPPING,
        "labels": classes_digest(names, lineage),
    }
    key = sha256_hex(canonical_json(parts))
    return Target(inference_key, key, float(margin_frac), names, lineage)


def detection_id(media_sha256: str, rank: int) -> str:
    """Return the id of a detection within an inference key, as in the names of snips."""
    return f"{media_sha256}-{rank}"
