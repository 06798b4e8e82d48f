"""What a weights file says about itself, so that `models add` needs no words for a usual export.

weights + overrides -> Recognised(config, reasons). Order of evidence: the overrides (config file), the file's
metadata, the names of its outputs, their shapes; for pixels see `preparation.py`. Where several decoders fit or
none does, or one thing contradicts another, the model is refused with the candidates and the line to write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from model_store.config import KINDS, AnyConfig, ClassifierConfig, ModelConfig, parse_config
from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec, OutputNonsense
from model_store.doubts import contradiction, near_misses, possible
from model_store.errors import ModelRefused
from model_store.evidence import MAX_SIDE_PX, Evidence, labels_of, read_evidence
from model_store.fit import SizePx
from model_store.preparation import Preparation, preparation
from model_store.reasons import Reason, reasons_for, reasons_for_classifier
from model_store.recognise_classifier import findings, is_classifier
from model_store.runtimes import WeightsSession, open_weights
from model_store.scaling import Scaling, first_steps
from model_store.signs import candidates

NEW = "config of the new version"
OTHER_TASKS = {
    "pose": "a pose model",
    "obb": "a model of rotated boxes",
}


@dataclass(frozen=True)
class Recognised:
    """The config of a new version, and why it is that one: no reasons where all of it was given."""

    config: AnyConfig
    reasons: tuple[Reason, ...] = ()


def recognise(runtime: str, weights: bytes, overrides: dict[str, Any]) -> Recognised:
    """Raises ModelRefused that says which line to put into the config file."""
    _require_kinds(overrides)
    session = open_weights(runtime, weights, threads=1)
    evidence = read_evidence(session, _given_px(overrides))
    scaling = first_steps(weights, session.input.name) if runtime == "onnx" else Scaling()
    labels: list[str] = overrides.get("labels") or labels_of(evidence.metadata)
    _require_one_size(evidence, overrides)
    if is_classifier(evidence, len(labels), overrides):
        return _classifier(runtime, evidence, scaling, labels, overrides)
    decoder: str = overrides.get("decoder") or _decoder(evidence, len(labels))
    _require_readable(evidence, decoder, len(labels), session)
    prepared = preparation(evidence, scaling, decoder, bool(_part(overrides).get("tiling")))
    config = _config(runtime, evidence, labels, decoder, prepared, overrides)
    return Recognised(config, reasons_for(config, evidence, prepared.why, overrides))


def _classifier(
    runtime: str,
    evidence: Evidence,
    scaling: Scaling,
    labels: list[str],
    overrides: dict[str, Any],
) -> Recognised:
    found = findings(evidence, scaling, len(labels), overrides)
    recognised = {
        "kind": "classifier",
        **_common(runtime, evidence, labels, found.preprocess),
        "scores": found.scores,
    }
    config = parse_config(json.dumps(_merge(recognised, overrides)), NEW)
    assert isinstance(config, ClassifierConfig)
    return Recognised(config, reasons_for_classifier(config, found.why, overrides))


def _config(
    runtime: str,
    evidence: Evidence,
    labels: list[str],
    decoder: str,
    prepared: Preparation,
    overrides: dict[str, Any],
) -> ModelConfig:
    recognised = {
        **_common(runtime, evidence, labels, prepared.preprocess),
        "decoder": decoder,
        "nms": dict(prepared.nms),
    }
    config = parse_config(json.dumps(_merge(recognised, overrides)), NEW)
    assert isinstance(config, ModelConfig)
    return config


def _common(
    runtime: str, evidence: Evidence, labels: list[str], preprocess: Mapping[str, Any]
) -> dict[str, Any]:
    """What configs of either kind say."""
    return {
        "runtime": {"kind": runtime},
        "labels": labels,
        "preprocess": dict(preprocess),
        "licence": evidence.metadata.get("license", ""),
        "source": evidence.metadata.get("source", ""),
        "description": evidence.metadata.get("description", ""),
    }


def _require_kinds(overrides: dict[str, Any]) -> None:
    """Of what recognition itself looks at; the rest is checked when all of the config is known."""
    labels, decoder, kind = (overrides.get(name) for name in ("labels", "decoder", "kind"))
    names = cast(Sequence[object], labels) if isinstance(labels, list | tuple) else (None,)
    if labels is not None and not all(isinstance(name, str) for name in names):
        raise ModelRefused(
            f'labels: {labels!r} is no list of names; write {{"labels": ["deer", …]}}'
        )
    if decoder is not None and not isinstance(decoder, str):
        raise ModelRefused(f'decoder: {decoder!r} is no name; write {{"decoder": "yolov8"}}')
    if kind is not None and not (isinstance(kind, str) and kind in KINDS):
        raise ModelRefused(f"kind: {kind!r} is unknown; there is: {', '.join(KINDS)}")


def _part(overrides: dict[str, Any]) -> dict[str, Any]:
    """What the config file says of preprocessing."""
    given: Any = overrides.get("preprocess")
    return cast(dict[str, Any], given) if isinstance(given, dict) else {}


def _given_px(overrides: dict[str, Any]) -> SizePx | None:
    side: Any = _part(overrides).get("side_px")
    height: Any = _part(overrides).get("height_px") or side
    if not all(isinstance(x, int) and 0 < x <= MAX_SIDE_PX for x in (side, height)):
        return None
    return side, height


def _require_one_size(evidence: Evidence, overrides: dict[str, Any]) -> None:
    """Raises ModelRefused where the graph and its metadata name two, and the config file none."""
    across, down = evidence.network_px
    if evidence.size_from != "graph" or evidence.imgsz in (None, (across, down)):
        return
    if _given_px(overrides) is None:
        wide, high = evidence.imgsz or (0, 0)
        line = {"side_px": across} | ({"height_px": down} if down != across else {})
        raise ModelRefused(
            f"the graph's input is {across} x {down} px, but metadata 'imgsz' says {wide} x {high}: was the "
            "right file exported? If the graph is right, say so in the config file: "
            f"{json.dumps({'preprocess': line})}"
        )


def _require_readable(
    evidence: Evidence, decoder: str, classes: int, session: WeightsSession
) -> None:
    """Raises ModelRefused where a decoder that the config file names cannot read the outputs at all."""
    fixed: frozenset[str] = getattr(session, "fixed_rows", frozenset())
    spec = DecodeSpec(evidence.network_px, classes, 1.0, fixed)
    try:
        if decoder in DECODERS:  # else the config says so
            DECODERS[decoder](evidence.outputs, spec)
    except OutputNonsense:
        pass  # of one grey picture; the probe sees to it
    except ModelRefused as error:
        fitting = candidates(evidence, classes) or near_misses(evidence, classes)
        others = f"; its outputs are rather those of {', or '.join(fitting)}" if fitting else ""
        raise ModelRefused(f"{error}{others}") from error


def _decoder(evidence: Evidence, classes: int) -> str:
    task = evidence.metadata.get("task", "detect")
    if task in OTHER_TASKS:
        raise ModelRefused(
            f"this is {OTHER_TASKS[task]} (metadata 'task': {task}); a detector is needed"
        )
    fitting = candidates(evidence, classes)
    contradicted = contradiction(evidence, fitting)
    if contradicted:
        words, choice = contradicted
        raise ModelRefused(
            f"{words}; if you know what is right, say so in the config file: {_lines(choice)}"
        )
    if len(fitting) == 1:
        return fitting[0]
    across, down = evidence.network_px
    shapes = f"outputs {evidence.shapes} with {classes} labels and an input of {across} x {down} px"
    if fitting:
        raise ModelRefused(
            f"{shapes} may mean several things; say which in the config file: {_lines(fitting)}"
        )
    near = near_misses(evidence, classes)
    nearest = f" Nearest: {'; or '.join(near)}." if near else ""
    raise ModelRefused(
        f"{shapes} fit no known decoder (is the number of labels right?).{nearest} If you know the decoder, "
        f"say so in the config file; with as many outputs there is: {_lines(possible(evidence))}"
    )


def _lines(decoders: Sequence[str]) -> str:
    return " or ".join(f'{{"decoder": "{name}"}}' for name in decoders)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` wins, field by field, also inside nested objects."""
    merged = dict(base)
    for name, value in over.items():
        below: Any = merged.get(name)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[name] = _merge(below, value) if both else value  # pyright: ignore[reportUnknownArgumentType]
    return merged
