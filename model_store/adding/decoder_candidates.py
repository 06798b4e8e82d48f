"""Choose the decoder for the outputs of a graph: evidence, number of classes -> name of a decoder, or ModelRefused.

The names of the outputs decide if they are those of a format; else each decoder's rule compares shapes and metadata.
Contradictory and ambiguous evidence is rejected, with the candidates and the formats that nearly fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model_store.decoders import DECODERS
from model_store.decoders.evidence import Evidence, anchors, pyramids, rows_of_yolov5
from model_store.decoders.rtdetr import MAX_QUERIES
from model_store.errors import ModelRefused


def candidates(evidence: Evidence, classes: int) -> list[str]:
    """Return the decoders that fit; the user must decide unless there is exactly one."""
    given = set(evidence.outputs)
    names = max((d.names for d in DECODERS.values() if d.names <= given), key=len)
    ranks = tuple(sorted(out.ndim for out in evidence.outputs.values()))
    return [
        name
        for name, decoder in DECODERS.items()
        if decoder.fits
        and decoder.names == names
        and (names or decoder.ranks == ranks)
        and decoder.fits(evidence, classes)
    ]


def choose_decoder(evidence: Evidence, classes: int) -> str:
    """Return the only decoder that fits. Raises ModelRefused with the line for the config file."""
    fitting = candidates(evidence, classes)
    contradicted = _contradiction(evidence, fitting)
    if contradicted:
        words, choice = contradicted
        raise ModelRefused(f"{words}; add the right decoder to the config file: {_lines(choice)}")
    if len(fitting) == 1:
        return fitting[0]
    across, down = evidence.network_px
    shapes = f"outputs {evidence.shapes} with {classes} labels and an input of {across} x {down} px"
    if fitting:
        meanings = "; ".join(f"{_lines([name])}: {DECODERS[name].described(classes)}" for name in fitting)
        raise ModelRefused(f"{shapes} are ambiguous; choose a decoder in the config file. {meanings}")
    near = near_misses(evidence, classes)
    nearest = f" Nearest: {'; or '.join(near)}." if near else ""
    raise ModelRefused(
        f"{shapes} fit no supported decoder (is the number of labels right?).{nearest} Otherwise, set the decoder in "
        f"the config file; for this number of outputs: {_lines(_possible(evidence))}"
    )


def _lines(decoders: Sequence[str]) -> str:
    return " or ".join(f'{{"decoder": "{name}"}}' for name in decoders)


def _possible(evidence: Evidence) -> list[str]:
    """Return the decoders for this number of outputs, or those for one output if there are none."""
    by_count: dict[int, list[str]] = {}
    for name, decoder in DECODERS.items():
        if decoder.fits:
            by_count.setdefault(len(decoder.names or decoder.ranks), []).append(name)
    return sorted(by_count.get(len(evidence.outputs), by_count[1]))


def _contradiction(evidence: Evidence, fitting: list[str]) -> tuple[str, list[str]] | None:
    """Return a contradiction of metadata and outputs, or within the metadata, and the decoders to choose from."""
    outputs = f"the outputs {evidence.shapes} are those of {', '.join(fitting)}"
    decoders, ranked = [DECODERS[name] for name in fitting], evidence.declares_ranked
    task = evidence.metadata.get("task")
    if not decoders:
        return None
    if task and any(decoder.masks for decoder in decoders) != (task == "segment"):
        return f"metadata 'task' is {task}, but {outputs}", fitting
    if ranked and evidence.names_rtdetr:
        both = "name RT-DETR ('head', 'description') and state that the graph ranks its detections"
        choice = sorted({*fitting, "end2end", "rtdetr_topk"})
        return f"the metadata {both} ('end2end', or 'nms' in 'args'), which RT-DETR's do not", choice
    if ranked and all(decoder.unranked for decoder in decoders):
        ranks = "the metadata ('end2end', or 'nms' in 'args') state that the graph ranks its detections"
        return f"{ranks}, but {outputs}, which are not ranked", fitting
    if evidence.names_rtdetr and not any(decoder.rtdetr for decoder in decoders):
        return f"the metadata ('head', 'description') name RT-DETR, but {outputs}", fitting
    if evidence.names_yolo and all(decoder.rtdetr for decoder in decoders):
        return f"the metadata ('head', 'description') name a YOLO, but {outputs}", fitting
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
    if rows > boxes and (columns in several or columns > rows):
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
