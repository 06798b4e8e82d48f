"""What decides which snips there are, their names and their bytes.

(Snips of the policy, ModelConfig) --cut_of--> Cut; Cut.key: the same key, the same files
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from batch.policy import Snips
from model_store.config import ModelConfig
from model_store.inference_key import canonical_json, sha256_hex
from model_store.shown import least_scores

ENCODER = 1
"""Raise it when the same settings are to give other bytes: rounding of corners, colour sampling, encoder."""
KEY_CHARS = 16
"""Of a key, in names of folders: 64 bits."""


@dataclass(frozen=True, slots=True)
class Cut:
    """`margin_frac` of a box's longer side around it; `least`: from which score each class is cut, by class id."""

    margin_frac: float
    quality: int
    least: tuple[float, ...]

    @property
    def key(self) -> str:
        """The settings key, 64 hex digits."""
        return sha256_hex(canonical_json({**asdict(self), "encoder": ENCODER}))


def cut_of(snips: Snips, config: ModelConfig) -> Cut:
    """Thresholds of the model are part of it: with others, other snips are there."""
    least = tuple(least_scores(config, snips.min_score).tolist())
    return Cut(snips.margin_frac, snips.quality, least)


def snip_name(settings_key: str, inference_key: str, media_sha256: str, rank: int) -> str:
    """Below the folder of all snips; `rank` is that of the detection in its row of `results`."""
    folder = f"{settings_key[:KEY_CHARS]}/{inference_key[:KEY_CHARS]}/{media_sha256[:2]}"
    return f"{folder}/{media_sha256}-{rank}.jpg"
