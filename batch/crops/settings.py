"""Settings that determine the snips, their names and their bytes.

(Snips of the policy, ModelConfig) --cut_of--> Cut; equal keys (Cut.key) give equal files
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from batch.schedule.policy import Snips
from model_store.config import ModelConfig
from model_store.inference_key import canonical_json, sha256_hex
from model_store.transform.thresholds import least_scores

ENCODER = 1
"""Increase it if equal settings give other bytes: rounding of corners, colour sampling, encoder."""
KEY_CHARS = 16
"""Characters of a key in names of folders: 64 bits."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Settings of crops: margin as a fraction of the longer side of a box; `least` are minimum scores by class id."""

    margin_frac: float
    quality: int
    least: tuple[float, ...]

    @property
    def key(self) -> str:
        """The settings key, 64 hex digits."""
        return sha256_hex(canonical_json({**asdict(self), "encoder": ENCODER}))


def cut_of(snips: Snips, config: ModelConfig) -> Cut:
    """Return the settings for a model, including its thresholds, as they determine which snips exist."""
    least = tuple(least_scores(config, snips.min_score).tolist())
    return Cut(snips.margin_frac, snips.quality, least)


def snip_name(settings_key: str, inference_key: str, media_sha256: str, rank: int) -> str:
    """Return the path below the folder of all snips; `rank` is that of the detection in its row of `results`."""
    folder = f"{settings_key[:KEY_CHARS]}/{inference_key[:KEY_CHARS]}/{media_sha256[:2]}"
    return f"{folder}/{media_sha256}-{rank}.jpg"
