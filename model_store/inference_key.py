"""Compute the inference key: models with the same key give the same rows.

key = sha256(canonical JSON of weights digest, labels digest, preprocess, decoder, nms, score_floor,
numerics version, and that of the decoder if it has one); canonical = sorted keys, no spaces, UTF-8.
The key of a classifier: kind, weights digest, labels digest, preprocess, scores, and its numerics version. That of an
embedder has `size` and `output` instead of `scores`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from model_store.config import AnyConfig, ClassifierConfig, EmbedderConfig, ExternalRuntime, MotionRuntime
from model_store.errors import ModelRefused

NUMERICS_VERSION = 2
"""Version of the code's numerical results. Raise it if code changes the results of a model: every archive is then due.

2: `fit_top_left` truncates sizes to whole pixels as YOLOX does, instead of rounding (a pixel less for half of all
sizes); lists that a graph has filled are `saturated`.
"""

DECODER_NUMERICS = {"yolox": 1, "yolox_raw": 1}
"""Numerics version of a single decoder: only archives with its results are then due. A decoder that is not listed has
0, which is not part of the key.

yolox, yolox_raw 1: a score of exactly score_floor is kept, as in YOLOX's code.
"""

CROP_NUMERICS = 1
"""Numerics version of classifiers and embedders: raise both if decoding, cropping or resizing of images changes."""

NEUTRAL: dict[str, Any] = {
    "jpeg_shrink": 1,
    "damaged": "tolerate",
    "height_px": None,
    "stride_px": 32,
    "tiling": None,
    "inclusive_px": False,
}
"""Later fields, each with the value of the earlier behaviour. This value is not part of the key, so that a new field
makes no archive due again."""


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def weights_digest(config: AnyConfig, digests: dict[str, str]) -> str:
    """Return the sha256 of the weights file, or of the runtime's settings if it has no weights.

    Raises ModelRefused if the weights file of the config is missing.
    """
    if not isinstance(config.runtime, MotionRuntime | ExternalRuntime):
        if config.runtime.weights not in digests:
            raise ModelRefused(
                f"runtime {config.runtime.kind} needs the weights file {config.runtime.weights}, which is missing; "
                'only {"runtime": {"kind": "motion"}} works without'
            )
        return digests[config.runtime.weights]
    return sha256_hex(canonical_json(config.runtime.model_dump(mode="json")))


def inference_key(config: AnyConfig, weights_sha256: str, numerics: int = NUMERICS_VERSION) -> str:
    """Return the key (64 hex digits); `numerics` gives a detector's key under another version of the code."""
    parts: dict[str, Any] = {
        "weights": weights_sha256,
        "labels": sha256_hex(canonical_json(list(config.labels))),
        "preprocess": _without_neutral(config.preprocess.model_dump(mode="json")),
    }
    if isinstance(config, ClassifierConfig):
        parts |= {"kind": config.kind, "scores": config.scores, "numerics": CROP_NUMERICS}
    elif isinstance(config, EmbedderConfig):
        parts |= {"kind": config.kind, "size": config.size, "output": config.output, "numerics": CROP_NUMERICS}
    else:
        nms = _without_neutral(config.nms.model_dump(mode="json"))
        parts |= {"decoder": config.decoder, "nms": nms, "score_floor": config.score_floor, "numerics": numerics}
        if config.decoder in DECODER_NUMERICS:
            parts["decoder_numerics"] = DECODER_NUMERICS[config.decoder]
    return sha256_hex(canonical_json(parts))


def _without_neutral(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in NEUTRAL or NEUTRAL[name] != value}
