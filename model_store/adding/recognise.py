"""Recognise the config of a weights file, so that `models add` needs no options for a usual export.

weights + overrides -> Recognised(config, reasons). Order of evidence: the overrides (config file), the file's
metadata, the names of its outputs, their shapes; for pixels see `preprocess_defaults.py`. If several decoders fit or
none, or the evidence is contradictory, the model is rejected with the candidates and the line to write. A graph with
one output of one score per label is a classifier, unless a decoder fits it; metadata `task` decides. A graph without
labels, with an output named as embeddings are, is an embedder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from model_store.adding.decoder_candidates import candidates, choose_decoder, near_misses
from model_store.adding.evidence import labels_of, read_evidence
from model_store.adding.explain import GIVEN, Reason, given_preprocess, reasons_for, why_decoder
from model_store.adding.input_scaling import Scaling, first_steps
from model_store.adding.preprocess_defaults import InferredPreprocess, infer_crops, infer_detector
from model_store.classifier import SUM_TOLERANCE, scores_of
from model_store.config import KINDS, AnyConfig, parse_config
from model_store.decoders import DECODERS
from model_store.decoders.evidence import MAX_SIDE_PX, Evidence, imgsz
from model_store.decoders.layout import DecodeSpec, OutputNonsense
from model_store.errors import ModelRefused
from model_store.frozen import wrong_fields
from model_store.runtimes import WeightsSession, open_weights
from model_store.transform.letterbox import SizePx

OTHER_TASKS = {"pose": "a pose model", "obb": "a model of rotated boxes"}
_EMBEDDING = ("embed", "feature", "hidden_state", "pooler")
"""Parts of the names that exporters give to outputs of encoders."""


@dataclass(frozen=True)
class Recognised:
    """The config of a new version and the reasons for it, none if all of it was given."""

    config: AnyConfig
    reasons: tuple[Reason, ...] = ()


def recognise(runtime: str, weights: bytes, overrides: dict[str, Any]) -> Recognised:
    """Recognise a weights file. Raises ModelRefused with the line to add to the config file."""
    _require_types(overrides)
    _require_known_fields(overrides)
    session = open_weights(runtime, weights, threads=1)
    evidence = read_evidence(session, _given_px(overrides))
    metadata = evidence.metadata
    _require_supported_task(evidence, overrides)
    scaling = first_steps(weights, session.input.name) if runtime == "onnx" else Scaling()
    is_embedder = _is_embedder(evidence, overrides)
    labels: list[str] = [] if is_embedder else overrides.get("labels") or labels_of(metadata)
    _require_one_size(evidence, overrides)
    kind = "embedder" if is_embedder else _kind(evidence, len(labels), overrides)
    infer = {"classifier": _classifier, "embedder": _embedder, "detector": _detector}[kind]
    found = infer(session, evidence, scaling, len(labels), overrides)
    about = {"licence": "license", "source": "source", "description": "description"}
    config = {
        "runtime": {"kind": runtime},
        **({"labels": labels} if labels else {}),
        **{field: metadata.get(key, "") for field, key in about.items()},
        **found.fields,
    }
    parsed = parse_config(json.dumps(_merge(config, overrides)), "config of the new version")
    assumed = "assumed: no weights file states it; a version with another one needs no new run"
    why = {"labels": "'names' in the metadata", "threshold": assumed, **found.why}
    return Recognised(parsed, reasons_for(parsed, why, overrides))


def _detector(
    session: WeightsSession, evidence: Evidence, scaling: Scaling, classes: int, overrides: Mapping[str, Any]
) -> InferredPreprocess:
    decoder: str = overrides.get("decoder") or choose_decoder(evidence, classes)
    _require_decodable(evidence, decoder, classes, session)
    found = infer_detector(evidence, scaling, decoder, bool(given_preprocess(overrides).get("tiling")))
    why = why_decoder(decoder, evidence, classes, "decoder" in overrides)
    return InferredPreprocess(found.fields, {**found.why, "decoder": why})


def _classifier(
    _: WeightsSession, evidence: Evidence, scaling: Scaling, labels: int, overrides: Mapping[str, Any]
) -> InferredPreprocess:
    """Raise ModelRefused if the outputs do not fit the labels, or are ambiguous."""
    task = evidence.metadata.get("task")
    source = GIVEN if overrides.get("kind") else f"metadata 'task': {task}"
    if not _is_score_per_label(evidence, labels):
        raise ModelRefused(
            f"the model is declared a classifier ({source}), but its outputs {evidence.shapes} "
            f"are not one score for each of its {labels} labels: is the number of labels right? For a network that "
            'returns a vector, add to the config file: {"kind": "embedder"}'
        )
    if not (overrides.get("kind") or task):
        source = f"outputs {evidence.shapes}: one score per label"
    scores, why_scores = _scores(evidence, labels, overrides)
    found = infer_crops("classifier", evidence, scaling)
    return InferredPreprocess({**found.fields, "scores": scores}, {**found.why, "kind": source, "scores": why_scores})


def _embedder(
    _: WeightsSession, evidence: Evidence, scaling: Scaling, __: int, overrides: Mapping[str, Any]
) -> InferredPreprocess:
    """Raise ModelRefused if no output, or more than one, can be the vector of an image."""
    vectors = {name: out.size for name, out in evidence.outputs.items() if out.size == max(out.shape) > 1}
    named = [name for name in vectors if _is_named_embedding(name)]
    possible = [overrides["output"]] if overrides.get("output") else named if len(named) == 1 else list(vectors)
    if len(possible) != 1 or possible[0] not in vectors:
        lines = " or ".join(json.dumps({"output": name}) for name in vectors)
        hint = f"add the right line to the config file: {lines}" if vectors else "none of them is one vector per image"
        raise ModelRefused(
            f"an embedder needs one output of shape [1, size]; its outputs are {evidence.shapes}: {hint}"
        )
    (output,) = possible
    fields = {"size": vectors[output], "output": output if len(evidence.outputs) > 1 else ""}
    found = infer_crops("embedder", evidence, scaling)
    source = GIVEN if overrides.get("kind") else f"outputs {evidence.shapes}: named as an embedding, without labels"
    return InferredPreprocess({**found.fields, **fields}, {**found.why, "kind": source, "vector": f"output {output}"})


def _require_types(overrides: dict[str, Any]) -> None:
    """Raise ModelRefused for invalid types in the fields that recognition reads; `parse_config` checks the rest."""
    labels, decoder, kind = (overrides.get(name) for name in ("labels", "decoder", "kind"))
    names = cast(Sequence[object], labels) if isinstance(labels, list | tuple) else (None,)
    if labels is not None and not all(isinstance(name, str) for name in names):
        raise ModelRefused(f'labels: {labels!r} is not a list of names: use {{"labels": ["deer", …]}}')
    if decoder is not None and not isinstance(decoder, str):
        raise ModelRefused(f'decoder: {decoder!r} is not a name: use {{"decoder": "yolov8"}}')
    if kind is not None and not (isinstance(kind, str) and kind in KINDS):
        raise ModelRefused(f"unknown kind {kind!r}: use {', '.join(KINDS)}")


def _require_known_fields(overrides: dict[str, Any]) -> None:
    """Raise ModelRefused for fields that no kind of config has: without them, recognition reports other causes."""
    unknown: list[str] = []
    for kind in [KINDS[overrides["kind"]]] if overrides.get("kind") else KINDS.values():
        try:
            kind.model_validate(overrides)
            return
        except ValidationError as error:
            unknown.append(wrong_fields(error, kind, unknown_only=True))
    if all(unknown):
        raise ModelRefused(f"config of the new version: {unknown[0]}")


def _given_px(overrides: dict[str, Any]) -> SizePx | None:
    side: Any = given_preprocess(overrides).get("side_px")
    height: Any = given_preprocess(overrides).get("height_px") or side
    if not all(isinstance(x, int) and 0 < x <= MAX_SIDE_PX for x in (side, height)):
        return None
    return side, height


def _require_one_size(evidence: Evidence, overrides: dict[str, Any]) -> None:
    """Raise ModelRefused if the graph and its metadata state two sizes, and the config file none."""
    across, down = evidence.network_px
    wide, high = imgsz(evidence.metadata) or (across, down)
    if evidence.size_from == "graph" and (wide, high) != (across, down) and _given_px(overrides) is None:
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
    """Raise ModelRefused for a model with another kind of result, unless the config file declares it."""
    if overrides.get("kind") or overrides.get("decoder"):
        return
    task = evidence.metadata.get("task", "")
    if task in OTHER_TASKS:
        raise ModelRefused(f"this is {OTHER_TASKS[task]} (metadata 'task': {task}); a detector is needed")
    outputs = evidence.outputs
    sides = {out.shape[2:] if out.ndim == 4 else (1,) for out in outputs.values()}
    if len(sides) == 1 and min(sides.pop()) > 1:
        raise ModelRefused(
            f"outputs {evidence.shapes} look like semantic segmentation, depth or other values for each pixel; a "
            "detector, a classifier or an embedder is needed"
        )


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge two objects field by field, also nested ones; `over` takes precedence."""
    merged = dict(base)
    for name, value in over.items():
        below: Any = merged.get(name)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[name] = _merge(below, value) if both else value  # pyright: ignore[reportUnknownArgumentType]
    return merged


def _is_embedder(evidence: Evidence, overrides: Mapping[str, Any]) -> bool:
    """Return True for an embedder, by the config file, then the names of the outputs.

    The scores of a classifier have the shape of an embedding, so these names count only without labels.
    """
    if overrides.get("kind") or overrides.get("decoder"):
        return overrides.get("kind") == "embedder"
    is_labelled = bool(overrides.get("labels") or evidence.metadata.get("names"))
    return not is_labelled and any(map(_is_named_embedding, evidence.outputs))


def _kind(evidence: Evidence, labels: int, overrides: Mapping[str, Any]) -> str:
    """Return `classifier` or `detector`, by the config file, the metadata, then the shape of the output."""
    if overrides.get("kind"):
        return str(overrides["kind"])
    if overrides.get("decoder"):
        return "detector"
    task = evidence.metadata.get("task")
    if task:
        return "classifier" if task == "classify" else "detector"
    return "classifier" if _is_score_per_label(evidence, labels) and not candidates(evidence, labels) else "detector"


def _is_named_embedding(output: str) -> bool:
    return any(part in output.lower() for part in _EMBEDDING)


def _is_score_per_label(evidence: Evidence, labels: int) -> bool:
    """Return True for one score per label, with length 1 in all other axes."""
    shapes = [out.shape for out in evidence.outputs.values()]
    return len(shapes) == 1 and labels > 1 and sorted(shapes[0])[-2:] == [1, labels]


def _scores(evidence: Evidence, labels: int, overrides: Mapping[str, Any]) -> tuple[str, str]:
    if overrides.get("scores"):
        return str(overrides["scores"]), GIVEN
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
