"""Explain what was recognised in a weights file, and why a file is rejected.

config, Evidence, why of the preparation, overrides --reasons_for--> each choice with its evidence, in printed order
Evidence, decoders that fit --contradiction, near_misses--> text for an error: contradictory evidence, and formats that
nearly fit
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from model_store.config import AnyConfig, ClassifierConfig, ModelConfig, Nms, Preprocess
from model_store.decoders import DECODERS
from model_store.decoders.evidence import Evidence, anchors, pyramids, rows_of_yolov5
from model_store.decoders.rtdetr import MAX_QUERIES

GIVEN = "the config file"
FIELDS = {
    "input": {"side_px", "height_px"},
    "pixels": {"channel_order", "divide_by", "mean", "std"},
    "resize": {"resize", "pad_value", "stride_px", "interpolation"},
}
"""Fields of `preprocess` by choice: if the config file sets one of them, it is the reason for the choice."""
SHOWN_LABELS = 5
_EMBEDDING = ("embed", "feature", "hidden_state", "pooler")
"""Parts of the names that exporters give to outputs of encoders."""


class Reason(NamedTuple):
    """A choice (`what`), its value (`found`), and its evidence (`why`)."""

    what: str
    found: str
    why: str


def reasons_for(
    config: ModelConfig, evidence: Evidence, why: Mapping[str, str], overrides: Mapping[str, Any]
) -> tuple[Reason, ...]:
    return (
        Reason("decoder", config.decoder, _decoder(config, evidence, "decoder" in overrides)),
        *_prepared(config, why, overrides),
        Reason("suppression", _nms(config.nms), GIVEN if "nms" in overrides else why["suppression"]),
    )


def reasons_for_classifier(
    config: ClassifierConfig, why: Mapping[str, str], overrides: Mapping[str, Any]
) -> tuple[Reason, ...]:
    return (
        Reason("kind", config.kind, why["kind"]),
        *_prepared(config, why, overrides),
        Reason("scores", config.scores, why["scores"]),
    )


def _prepared(config: AnyConfig, why: Mapping[str, str], overrides: Mapping[str, Any]) -> tuple[Reason, ...]:
    """Return the reasons for the labels and for preprocessing."""
    spec, given = config.preprocess, overrides.get("preprocess")
    fields = set(cast(Mapping[str, Any], given)) if isinstance(given, dict) else set[str]()
    evidence = {what: GIVEN if fields & FIELDS[what] else why[what] for what in FIELDS}
    across, down = spec.input_px
    labels = ", ".join(config.labels[:SHOWN_LABELS])
    more = len(config.labels) - SHOWN_LABELS
    return (
        Reason(
            "labels",
            f"{len(config.labels)}: {labels}{f' and {more} more' if more > 0 else ''}",
            GIVEN if overrides.get("labels") else "'names' in the metadata",
        ),
        Reason("input", f"{across} x {down} px", evidence["input"]),
        Reason("pixels", _pixels(spec), evidence["pixels"]),
        Reason("resize", _resize(spec), evidence["resize"]),
    )


def _decoder(config: ModelConfig, evidence: Evidence, given: bool) -> str:
    labels = evidence.outputs.get("labels")
    beyond = labels.shape[-1] - len(config.labels) if labels is not None else 0
    spare = config.decoder == "rfdetr" and beyond > 1
    unused = f"; {beyond} logits beyond the labels are treated as background" if spare else ""
    if given:
        return GIVEN + unused
    outputs = f"outputs {evidence.shapes}"
    decoder = DECODERS[config.decoder]
    if not decoder.description:
        return f"the names of {outputs}"
    looks = f"{outputs}: {decoder.description.format(classes=len(config.labels))}"
    if evidence.says_ranked and not decoder.unranked:
        return f"{looks}; the metadata state that the graph ranks ('end2end', or 'nms' in 'args')"
    if evidence.names_yolo and not decoder.unranked:
        return f"{looks}; the metadata name a YOLO ('head', 'description')"
    if evidence.names_rtdetr and decoder.rtdetr:
        return f"{looks}; the metadata name RT-DETR ('head', 'description')"
    return looks


def _pixels(spec: Preprocess) -> str:
    scaled = {255.0: "0 to 1", 1.0: "0 to 255"}.get(spec.divide_by, f"over {spec.divide_by:g}")
    if spec.mean == (0, 0, 0) and spec.std == (1, 1, 1):
        return f"{spec.channel_order}, {scaled}"
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (spec.mean, spec.std))
    return f"{spec.channel_order}, {scaled}, minus ({mean}), over ({std})"


def _resize(spec: Preprocess) -> str:
    if spec.resize == "stretch":
        return "stretch"
    to = f" to {spec.stride_px} px" if spec.resize == "rect" else ""
    return f"{spec.resize}{to}, padded with {spec.pad_value}"


def _nms(spec: Nms) -> str:
    if spec.kind == "none":
        return f"none, at most {spec.max_detections}"
    classes = "within a class" if spec.class_aware else "across classes"
    inclusive = ", pixels inclusive" if spec.inclusive_px else ""
    return f"over IoU {spec.iou:g}, {classes}{inclusive}, at most {spec.max_detections}"


def contradiction(evidence: Evidence, fitting: Sequence[str]) -> tuple[str, list[str]] | None:
    """Return a contradiction of metadata and outputs, or within the metadata, and the decoders to choose from."""
    outputs = f"the outputs {evidence.shapes} are those of {', '.join(fitting)}"
    decoders, ranked = [DECODERS[name] for name in fitting], evidence.says_ranked
    segments = any(decoder.masks for decoder in decoders)
    task = evidence.metadata.get("task")
    if not decoders:
        return None
    if task and segments != (task == "segment"):
        return f"metadata 'task' is {task}, but {outputs}", [*fitting]
    if ranked and evidence.names_rtdetr:
        both = "name RT-DETR ('head', 'description') and state that the graph ranks its detections"
        choice = sorted({*fitting, "end2end", "rtdetr_topk"})
        return (f"the metadata {both} ('end2end', or 'nms' in 'args'), which RT-DETR's do not", choice)
    if ranked and all(decoder.unranked for decoder in decoders):
        ranks = "the metadata ('end2end', or 'nms' in 'args') state that the graph ranks its detections"
        return f"{ranks}, but {outputs}, which are not ranked", [*fitting]
    if evidence.names_rtdetr and not any(decoder.rtdetr for decoder in decoders):
        return f"the metadata ('head', 'description') name RT-DETR, but {outputs}", [*fitting]
    if evidence.names_yolo and all(decoder.rtdetr for decoder in decoders):
        return f"the metadata ('head', 'description') name a YOLO, but {outputs}", [*fitting]
    return None


def other_task(evidence: Evidence, is_labelled: bool) -> str | None:
    """Return which other task the outputs look like: a map of the whole image, or an embedding; else None.

    The scores of a classifier have the shape of an embedding, so names of outputs count only without labels.
    """
    outputs = evidence.outputs
    if all(out.ndim == 4 for out in outputs.values()):
        sides = {out.shape[2:] for out in outputs.values()}
        if len(sides) == 1 and min(sides.pop()) > 1:
            return "semantic segmentation, depth or other values for each pixel"
    if not is_labelled and any(part in name.lower() for name in outputs for part in _EMBEDDING):
        return "an embedding of the image, which has no labels"
    return None


def near_misses(evidence: Evidence, classes: int) -> list[str]:
    """Return decoders that would fit with another output, or another number of labels."""
    return [*_by_name(evidence), *_by_shape(evidence, classes)]


def _by_name(evidence: Evidence) -> Iterator[str]:
    decoders: dict[frozenset[str], list[str]] = {}
    for name, record in DECODERS.items():
        decoders.setdefault(record.names, []).append(name)
    for wanted, names in decoders.items():
        missing = sorted(wanted - evidence.outputs.keys())
        if missing and 2 * len(missing) <= len(wanted):
            verb = "is" if len(missing) == 1 else "are"
            yield f"{' or '.join(names)}, but {' and '.join(missing)} {verb} missing"


def _by_shape(evidence: Evidence, classes: int) -> Iterator[str]:
    outputs = evidence.outputs
    if outputs.keys() >= {"dets", "labels"}:
        logits = outputs["labels"].shape[-1]
        gaps = "; COCO's class numbers have gaps: name those too" if logits > classes else ""
        yield f"rfdetr, with {logits - 1} or {logits} labels{gaps}"
    elif outputs.keys() >= {"boxes", "scores"}:
        yield f"ssd, with {outputs['scores'].shape[-1]} labels"
    if sorted(out.ndim for out in outputs.values()) in ([3], [3, 4]):
        yield from _of_rows(evidence)


def _of_rows(evidence: Evidence) -> Iterator[str]:
    rows, columns = evidence.rows.shape[1:]
    several, prototypes = pyramids(evidence.network_px, least=3), evidence.prototypes
    boxes, objects = 4 + prototypes, 5 + prototypes
    if columns in several and rows > boxes:
        yield f"{'yolov8_seg' if prototypes else 'yolov8'}, with {rows - boxes} labels"
    if rows in rows_of_yolov5(evidence) and columns > objects:
        yield f"{'yolov5_seg' if prototypes else 'yolov5'}, with {columns - objects} labels"
    if prototypes:
        return
    if rows == anchors(evidence.network_px, 3, 1) and columns > objects:
        yield f"yolox, with {columns - objects} labels"
    if rows in several and columns > boxes:
        yield (
            f"yolov8, with {columns - boxes} labels, if its last two axes are transposed (export it without "
            "the transposition)"
        )
    elif rows <= MAX_QUERIES and boxes < columns < rows:
        yield f"rtdetr, with {columns - boxes} labels"
