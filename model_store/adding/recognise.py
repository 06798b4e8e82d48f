"""Recognise the config of a weights file, so that `models add` needs no options for a usual export.

weights + overrides -> Recognised(config, reasons). Order of evidence: the overrides (config file), the file's
metadata, the names of its outputs, their shapes; for pixels see `preprocess_defaults.py`. If several decoders fit or
none, or the evidence is contradictory, the model is rejected with the candidates and the line to write. A graph with
one output of one score per label is a classifier, unless a decoder fits it; metadata `task` decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from model_store.adding.decoder_candidates import candidates, possible
from model_store.adding.evidence import labels_of, read_evidence
from model_store.adding.explain import (
    Reason,
    contradiction,
    near_misses,
    other_task,
    reasons_for,
    reasons_for_classifier,
)
from model_store.adding.input_scaling import Scaling, first_steps
from model_store.adding.preprocess_defaults import (
    AS_FRACTIONS,
    AS_THEY_ARE,
    CLASSIFIER_SCALING,
    CLASSIFIER_SIDE_PX,
    Preparation,
    of_ultralytics,
    preparation,
    why_size,
)
from model_store.classifier import SUM_TOLERANCE, scores_of
from model_store.config import KINDS, AnyConfig, ClassifierConfig, ModelConfig, parse_config
from model_store.decoders import DECODERS, IMAGENET
from model_store.decoders.evidence import MAX_SIDE_PX, Evidence
from model_store.decoders.layout import DecodeSpec, OutputNonsense
from model_store.errors import ModelRefused
from model_store.runtimes import WeightsSession, open_weights
from model_store.transform.letterbox import SizePx

NEW = "config of the new version"
OTHER_TASKS = {"pose": "a pose model", "obb": "a model of rotated boxes"}
CLASSIFY = "classify"
"""Metadata `task` of classifiers, as exporters write it."""


@dataclass(frozen=True)
class Recognised:
    """The config of a new version and the reasons for it, none if all of it was given."""

    config: AnyConfig
    reasons: tuple[Reason, ...] = ()


def recognise(runtime: str, weights: bytes, overrides: dict[str, Any]) -> Recognised:
    """Recognise a weights file. Raises ModelRefused with the line to add to the config file."""
    _require_types(overrides)
    session = open_weights(runtime, weights, threads=1)
    evidence = read_evidence(session, _given_px(overrides))
    _require_supported_task(evidence, overrides)
    scaling = first_steps(weights, session.input.name) if runtime == "onnx" else Scaling()
    labels: list[str] = overrides.get("labels") or labels_of(evidence.metadata)
    _require_one_size(evidence, overrides)
    if is_classifier(evidence, len(labels), overrides):
        return _classifier(runtime, evidence, scaling, labels, overrides)
    decoder: str = overrides.get("decoder") or _decoder(evidence, len(labels))
    _require_decodable(evidence, decoder, len(labels), session)
    prepared = preparation(evidence, scaling, decoder, bool(_given_preprocess(overrides).get("tiling")))
    config = _config(runtime, evidence, labels, decoder, prepared, overrides)
    return Recognised(config, reasons_for(config, evidence, prepared.why, overrides))


def _classifier(
    runtime: str, evidence: Evidence, scaling: Scaling, labels: list[str], overrides: dict[str, Any]
) -> Recognised:
    found = findings(evidence, scaling, len(labels), overrides)
    recognised = {"kind": "classifier", **_common(runtime, evidence, labels, found.preprocess), "scores": found.scores}
    config = parse_config(json.dumps(_merge(recognised, overrides)), NEW)
    assert isinstance(config, ClassifierConfig)
    return Recognised(config, reasons_for_classifier(config, found.why, overrides))


def _config(
    runtime: str, evidence: Evidence, labels: list[str], decoder: str, prepared: Preparation, overrides: dict[str, Any]
) -> ModelConfig:
    recognised = {
        **_common(runtime, evidence, labels, prepared.preprocess),
        "decoder": decoder,
        "nms": dict(prepared.nms),
    }
    config = parse_config(json.dumps(_merge(recognised, overrides)), NEW)
    assert isinstance(config, ModelConfig)
    return config


def _common(runtime: str, evidence: Evidence, labels: list[str], preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that configs of both kinds have."""
    return {
        "runtime": {"kind": runtime},
        "labels": labels,
        "preprocess": dict(preprocess),
        "licence": evidence.metadata.get("license", ""),
        "source": evidence.metadata.get("source", ""),
        "description": evidence.metadata.get("description", ""),
    }


def _require_types(overrides: dict[str, Any]) -> None:
    """Raise ModelRefused for invalid types in the fields that recognition reads; `parse_config` checks the rest."""
    labels, decoder, kind = (overrides.get(name) for name in ("labels", "decoder", "kind"))
    names = cast(Sequence[object], labels) if isinstance(labels, list | tuple) else (None,)
    if labels is not None and not all(isinstance(name, str) for name in names):
        raise ModelRefused(f'labels: {labels!r} is not a list of names: use {{"labels": ["deer", …]}}')
    if decoder is not None and not isinstance(decoder, str):
        raise ModelRefused(f'decoder: {decoder!r} is not a name: use {{"decoder": "yolov8"}}')
    if kind is not None and not (isinstance(kind, str) and kind in KINDS):
        raise ModelRefused(f"unknown kind {kind!r}: use {' or '.join(KINDS)}")


def _given_preprocess(overrides: dict[str, Any]) -> dict[str, Any]:
    """Return `preprocess` of the config file."""
    given: Any = overrides.get("preprocess")
    return cast(dict[str, Any], given) if isinstance(given, dict) else {}


def _given_px(overrides: dict[str, Any]) -> SizePx | None:
    side: Any = _given_preprocess(overrides).get("side_px")
    height: Any = _given_preprocess(overrides).get("height_px") or side
    if not all(isinstance(x, int) and 0 < x <= MAX_SIDE_PX for x in (side, height)):
        return None
    return side, height


def _require_one_size(evidence: Evidence, overrides: dict[str, Any]) -> None:
    """Raise ModelRefused if the graph and its metadata state two sizes, and the config file none."""
    across, down = evidence.network_px
    if evidence.size_from != "graph" or evidence.imgsz in (None, (across, down)):
        return
    if _given_px(overrides) is None:
        wide, high = evidence.imgsz or (0, 0)
        line = {"side_px": across} | ({"height_px": down} if down != across else {})
        raise ModelRefused(
            f"the graph's input is {across} x {down} px, but metadata 'imgsz' is {wide} x {high}: was the "
            "right file exported? If the graph is right, add to the config file: "
            f"{json.dumps({'preprocess': line})}"
        )


def _require_decodable(evidence: Evidence, decoder: str, classes: int, session: WeightsSession) -> None:
    """Raise ModelRefused if the decoder of the config file cannot read the outputs."""
    fixed: frozenset[str] = getattr(session, "fixed_rows", frozenset())
    spec = DecodeSpec(evidence.network_px, classes, 1.0, fixed)
    try:
        if decoder in DECODERS:  # an unknown name is rejected with the config
            DECODERS[decoder](evidence.outputs, spec)
    except OutputNonsense:
        pass  # of one grey image; the probe checks real ones
    except ModelRefused as error:
        fitting = candidates(evidence, classes) or near_misses(evidence, classes)
        others = f"; its outputs look like those of {', or '.join(fitting)}" if fitting else ""
        raise ModelRefused(f"{error}{others}") from error


def _require_supported_task(evidence: Evidence, overrides: Mapping[str, Any]) -> None:
    """Raise ModelRefused for a model that finds neither boxes nor classes, unless the config file declares it."""
    if overrides.get("kind") or overrides.get("decoder"):
        return
    task = evidence.metadata.get("task", "")
    if task in OTHER_TASKS:
        raise ModelRefused(f"this is {OTHER_TASKS[task]} (metadata 'task': {task}); a detector is needed")
    is_labelled = bool(overrides.get("labels") or evidence.metadata.get("names"))
    if found := other_task(evidence, is_labelled):
        raise ModelRefused(f"outputs {evidence.shapes} look like {found}; a detector or a classifier is needed")


def _decoder(evidence: Evidence, classes: int) -> str:
    fitting = candidates(evidence, classes)
    contradicted = contradiction(evidence, fitting)
    if contradicted:
        words, choice = contradicted
        raise ModelRefused(f"{words}; add the right decoder to the config file: {_lines(choice)}")
    if len(fitting) == 1:
        return fitting[0]
    across, down = evidence.network_px
    shapes = f"outputs {evidence.shapes} with {classes} labels and an input of {across} x {down} px"
    if fitting:
        raise ModelRefused(f"{shapes} are ambiguous; choose a decoder in the config file: {_lines(fitting)}")
    near = near_misses(evidence, classes)
    nearest = f" Nearest: {'; or '.join(near)}." if near else ""
    raise ModelRefused(
        f"{shapes} fit no supported decoder (is the number of labels right?).{nearest} Otherwise, set the decoder in "
        f"the config file; for this number of outputs: {_lines(possible(evidence))}"
    )


def _lines(decoders: Sequence[str]) -> str:
    return " or ".join(f'{{"decoder": "{name}"}}' for name in decoders)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge two objects field by field, also nested ones; `over` takes precedence."""
    merged = dict(base)
    for name, value in over.items():
        below: Any = merged.get(name)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[name] = _merge(below, value) if both else value  # pyright: ignore[reportUnknownArgumentType]
    return merged


@dataclass(frozen=True)
class Findings:
    """Inferred settings; `why` gives the reason for each choice: kind, scores, input, pixels, resize."""

    scores: str
    preprocess: Mapping[str, Any]
    why: Mapping[str, str]


def is_classifier(evidence: Evidence, labels: int, overrides: Mapping[str, Any]) -> bool:
    """Return True for a classifier, by the config file, the metadata, then the shape of the output."""
    if overrides.get("kind"):
        return overrides["kind"] == "classifier"
    if overrides.get("decoder"):
        return False
    task = evidence.metadata.get("task")
    if task:
        return task == CLASSIFY
    return _fits(evidence, labels) and not candidates(evidence, labels)


def findings(evidence: Evidence, scaling: Scaling, labels: int, overrides: Mapping[str, Any]) -> Findings:
    """Infer a classifier's settings. Raises ModelRefused if its outputs do not fit the labels, or are ambiguous."""
    if not _fits(evidence, labels):
        raise ModelRefused(
            f"the model is declared a classifier ({_source(evidence, overrides)}), but its outputs {evidence.shapes} "
            f"are not one score for each of its {labels} labels: is the number of labels right?"
        )
    scores, why_scores = _scores(evidence, labels, overrides)
    pixels, why_pixels = _pixels(evidence, scaling)
    guessed = evidence.size_from == "guess"
    across, down = (CLASSIFIER_SIDE_PX,) * 2 if guessed else evidence.network_px
    size = {"side_px": across} | ({"height_px": down} if down != across else {})
    usual = f"guessed: neither graph nor metadata state it, and {CLASSIFIER_SIDE_PX} is usual"
    return Findings(
        scores,
        {"resize": "stretch", **size, **pixels},
        {
            "kind": _source(evidence, overrides),
            "scores": why_scores,
            "input": usual if guessed else why_size(evidence),
            "pixels": why_pixels,
            "resize": "assumed: the whole crop is used; many are trained on the centre of their images",
        },
    )


def _fits(evidence: Evidence, labels: int) -> bool:
    """Return True for one score per label, with length 1 in all other axes."""
    shapes = [out.shape for out in evidence.outputs.values()]
    return len(shapes) == 1 and labels > 1 and sorted(shapes[0])[-2:] == [1, labels]


def _source(evidence: Evidence, overrides: Mapping[str, Any]) -> str:
    """Return the evidence for a classifier."""
    if overrides.get("kind"):
        return "the config file"
    task = evidence.metadata.get("task")
    outputs = f"outputs {evidence.shapes}: one score per label"
    return f"metadata 'task': {task}" if task else outputs


def _scores(evidence: Evidence, labels: int, overrides: Mapping[str, Any]) -> tuple[str, str]:
    if overrides.get("scores"):
        return str(overrides["scores"]), "the config file"
    (scores,) = scores_of(evidence.outputs, 1, labels)
    low, high = float(scores.min()), float(scores.max())
    if low >= 0 and abs(float(scores.sum()) - 1) <= SUM_TOLERANCE:
        return "probabilities", "those of a grey image are 0 or more, with the sum 1"
    if low >= 0 and high <= 1:
        lines = " or ".join(json.dumps({"scores": kind}) for kind in ("logits", "probabilities"))
        raise ModelRefused(
            f"scores of a grey image lie from {low:.3g} to {high:.3g} and their sum is not 1: are they logits, or "
            "independent scores per label (a sigmoid), which are not supported? Add the right line to the config "
            f"file: {lines}"
        )
    return "logits", f"those of a grey image lie from {low:.3g} to {high:.3g}"


def _pixels(evidence: Evidence, scaling: Scaling) -> tuple[dict[str, Any], str]:
    """Return range and scaling of pixels, and the reason.

    Evidence: the type of the graph's input, its first steps, the metadata, else the most common training.
    """
    if evidence.input.dtype == np.uint8:
        return {**AS_THEY_ARE}, "the graph takes integers"
    if scaling.fed is not None:
        scaled = AS_THEY_ARE if scaling.fed == "bytes" else AS_FRACTIONS
        return {**scaled}, f"the graph begins with {scaling.words}"
    if of_ultralytics(evidence):
        return {**AS_FRACTIONS}, "the metadata name Ultralytics"
    words = " ".join(evidence.metadata.values()).lower().replace("_", "-")
    for network, scaled in CLASSIFIER_SCALING.items():
        if network in words:
            return {**scaled}, f"the metadata name {network}"
    return {**IMAGENET}, "assumed: ImageNet's mean and deviation, as of torchvision and timm"
